package kontor.conformance;

import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.jwk.Curve;
import com.nimbusds.jose.jwk.gen.ECKeyGenerator;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.Map;
import java.util.concurrent.Executors;
import org.eclipse.edc.connector.dataplane.spi.Endpoint;
import org.eclipse.edc.connector.dataplane.spi.iam.DataPlaneAuthorizationService;
import org.eclipse.edc.connector.dataplane.spi.iam.PublicEndpointGeneratorService;
import org.eclipse.edc.runtime.metamodel.annotation.Inject;
import org.eclipse.edc.spi.security.Vault;
import org.eclipse.edc.spi.system.ServiceExtension;
import org.eclipse.edc.spi.system.ServiceExtensionContext;

/**
 * The public endpoint of EDC's data plane. EDC has left it to its users since 0.15: it makes and checks the tokens, and
 * an extension of this kind says where the data is fetched and hands it out. This one stays as small as it can be.
 */
public class PublicEndpoint implements ServiceExtension {
    private static final String BASE_URL = "https://w3id.org/edc/v0.0.1/ns/baseUrl";

    @Inject
    private PublicEndpointGeneratorService endpoints;
    @Inject
    private DataPlaneAuthorizationService authorization;
    @Inject
    private Vault vault;

    private HttpServer server;

    @Override
    public void initialize(ServiceExtensionContext context) {
        var port = context.getConfig().getInteger("kontor.conformance.public.port");
        var address = "http://127.0.0.1:" + port + "/public";
        try {
            var key = new ECKeyGenerator(Curve.P_256).keyID("public-key").generate();
            vault.storeSecret("private-key", key.toJSONString());
            vault.storeSecret("public-key", key.toPublicJWK().toJSONString());
            server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        } catch (JOSEException e) {
            throw new IllegalStateException(e);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/public", this::serve);
        endpoints.addGeneratorFunction("HttpData", source -> Endpoint.url(address));
    }

    @Override
    public void start() {
        server.start();
    }

    @Override
    public void shutdown() {
        server.stop(0);
    }

    private void serve(HttpExchange exchange) throws IOException {
        try (exchange) {
            var header = exchange.getRequestHeaders().getFirst("Authorization");
            if (header == null) {
                exchange.sendResponseHeaders(401, -1);
                return;
            }
            var authorized = authorization.authorize(header.replaceFirst("(?i)^bearer +", ""), Map.of());
            if (authorized.failed()) {
                exchange.sendResponseHeaders(403, -1);
                return;
            }
            var source = URI.create(authorized.getContent().getStringProperty(BASE_URL)).toURL();
            try (var data = source.openStream()) {
                // Chunked: the length is not known before the end.
                exchange.sendResponseHeaders(200, 0);
                data.transferTo(exchange.getResponseBody());
            }
        }
    }
}
