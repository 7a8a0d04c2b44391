//! Certificates, made for one test.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose};
use rcgen::{IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An authority, what it has certified, and an authority that the server does not know.
pub(super) struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let certificates = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let known = certificates.authority("ca");
        let other = certificates.authority("other-ca");
        certificates.issue("server", ExtendedKeyUsagePurpose::ServerAuth, &known);
        certificates.issue("client", ExtendedKeyUsagePurpose::ClientAuth, &known);
        certificates.issue("stranger", ExtendedKeyUsagePurpose::ClientAuth, &other);
        certificates
    }

    fn write(&self, name: &str, pem: &str) {
        std::fs::write(self.path(name), pem).unwrap();
    }

    fn authority(&self, name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write(&format!("{name}.pem"), &authority.pem());
        authority
    }

    fn issue(
        &self,
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        authority: &CertifiedIssuer<'static, KeyPair>,
    ) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, authority).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `[access]` of a server under TLS.
    pub(super) fn config(&self, is_mutual: bool) -> String {
        let mut text = format!(
            "[access]\ntls_certificate = {:?}\ntls_key = {:?}\n",
            self.path("server.pem"),
            self.path("server.key")
        );
        if is_mutual {
            text += &format!("tls_client_ca = {:?}\n", self.path("ca.pem"));
        }
        text
    }

    /// TLS of a client that trusts the authority, with a certificate of its own or none.
    pub(super) fn client(&self, own: Option<&str>, protocol: &str) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("ca.pem")).unwrap();
        roots.add(authority).unwrap();
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let file = |end: &str| self.path(&format!("{name}.{end}"));
                let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
                let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Arc::new(config)
    }
}
