//! TLS of the TCP listeners: certificate, key and the authority of clients' certificates, from PEM files that are read
//! once, at the start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use super::{Certificate, ListenerKind};
use crate::config::access::TlsFiles;

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("access.{key}: {}: {source}; expected a PEM file with {expected}", path.display())]
    File {
        /// Its key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
        /// What it should hold.
        expected: &'static str,
    },
    /// The files do not go together, or hold what TLS cannot use.
    #[error("access.{key}: {}: {source}", path.display())]
    Unusable {
        /// The key in the configuration of the file that is most likely the wrong one.
        key: &'static str,
        /// That file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The authority of clients' certificates cannot be used.
    #[error("access.tls_client_ca: {}: {source}", path.display())]
    ClientAuthority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
}

/// What TCP listeners need to speak TLS.
#[derive(Clone)]
pub struct Tls {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let unusable = |key, path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Unusable { key, path, source }
        };
        let chain = certificates("tls_certificate", &files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
            key: "tls_key",
            path: files.key.clone(),
            source,
            expected: "a private key",
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable("tls_certificate", &files.certificate))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("tls_client_ca", path)? {
                    roots
                        .add(authority)
                        .map_err(unusable("tls_client_ca", path))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|source| TlsError::ClientAuthority {
                    path: path.clone(),
                    source,
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder
            .with_single_cert(chain, key)
            .map_err(unusable("tls_key", &files.key))?;
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Self {
            http1: speaking(b"http/1.1"),
            http2: speaking(b"h2"),
        })
    }

    /// What makes connections of a listener's sockets.
    pub(super) fn acceptor(&self, kind: ListenerKind) -> TlsAcceptor {
        let config = match kind {
            ListenerKind::Http | ListenerKind::Metrics => &self.http1,
            ListenerKind::Control | ListenerKind::Admin | ListenerKind::Grpc => &self.http2,
        };
        Arc::clone(config).into()
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::File {
        key,
        path: path.to_owned(),
        source,
        expected: "certificates",
    };
    let read = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(wrong)?;
    if certificates.is_empty() {
        return Err(wrong(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

/// What the certificate of a client says, which the handshake has verified.
pub(super) fn certificate(stream: &TlsStream<TcpStream>) -> Option<Arc<Certificate>> {
    let (_, session) = stream.get_ref();
    let own = session.peer_certificates()?.first()?;
    let mut names = Vec::new();
    if let Ok(parsed) = EndEntityCert::try_from(own) {
        let all = parsed.valid_dns_names().chain(parsed.valid_uri_names());
        names.extend(all.map(str::to_owned));
    }
    Some(Arc::new(Certificate { names }))
}
