//! IRI constants by namespace, each with its meaning.

/// The JSON-LD context that every DSP 2025-1 message names.
pub const DSPACE_CONTEXT: &str = "https://w3id.org/dspace/2025/1/context.jsonld";
/// Namespace of the Dataspace Protocol 2025-1.
pub const DSPACE: &str = "https://w3id.org/dspace/2025/1/";
/// Namespace of ODRL 2.2.
pub const ODRL: &str = "http://www.w3.org/ns/odrl/2/";
/// Namespace of DCAT 3.
pub const DCAT: &str = "http://www.w3.org/ns/dcat#";
/// Namespace of Dublin Core terms.
pub const DCT: &str = "http://purl.org/dc/terms/";
/// Namespace of FOAF.
pub const FOAF: &str = "http://xmlns.com/foaf/0.1/";
/// Namespace of the IDS Information Model.
pub const IDS: &str = "https://w3id.org/idsa/core/";
/// Namespace of the code lists of the IDS Information Model.
pub const IDSC: &str = "https://w3id.org/idsa/code/";
/// Namespace of XML Schema datatypes.
pub const XSD: &str = "http://www.w3.org/2001/XMLSchema#";
/// Namespace of RDF.
pub const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
/// Namespace of RDF Schema.
pub const RDFS: &str = "http://www.w3.org/2000/01/rdf-schema#";
/// Namespace of SPDX, for checksums.
pub const SPDX: &str = "http://spdx.org/rdf/terms#";
/// Namespace of Eclipse EDC, for what it adds to the protocol: its catalogue filter, its names in data addresses.
pub const EDC: &str = "https://w3id.org/edc/v0.0.1/ns/";
/// The version of the Dataspace Protocol that we speak, as it is spelled in the version document.
pub const DSP_VERSION: &str = "2025-1";
/// The protocol binding that we speak, as it is spelled in the version document.
pub const DSP_BINDING: &str = "HTTPS";
/// The transfer format that a provider serves by HTTP GET: the consumer pulls.
pub const FORMAT_HTTP_PULL: &str = "HttpData-PULL";
/// The endpoint type of a data address that is reached by HTTP.
pub const ENDPOINT_TYPE_HTTP: &str = "https://w3id.org/idsa/v4.1/HTTP";
