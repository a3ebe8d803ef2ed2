# syntax=docker/dockerfile:1.7
# The connector, `kontor`. Build from the repository's root: docker build -f docker/connector.Dockerfile -t kontor:0.1.0 .

FROM rust:1.95.0-bookworm AS builder
WORKDIR /build
COPY . .
# The image brings the C compiler, make and perl that the vendored OpenSSL needs. The caches outlive a failed build.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --release --package kontor --bin kontor \
    && install -D target/release/kontor /out/kontor

FROM debian:12.11-slim
# curl is for the operator: the management port is reachable from inside the container only.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin kontor \
    && install -d -o kontor -g kontor -m 0750 /keys /var/lib/kontor /var/lib/kontor/source
COPY --from=builder /out/kontor /usr/local/bin/kontor
USER 10001:10001
WORKDIR /var/lib/kontor
EXPOSE 8443
ENTRYPOINT ["kontor"]
CMD ["serve", "--config", "/etc/kontor/kontor.toml"]
