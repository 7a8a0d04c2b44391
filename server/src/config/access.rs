//! `[access]`: who may do what over which listener. The files that it names are read when the server starts, by what uses
//! them.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, check};
use crate::control::access::{Right, Rights};

/// `[access]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSection {
    /// Certificate chain of the TCP listeners (PEM), the server's own first. With it they speak TLS and nothing else.
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    pub tls_key: Option<PathBuf>,
    /// Authorities (PEM): every caller over TCP needs a certificate of one of them.
    pub tls_client_ca: Option<PathBuf>,
    /// Rights of callers with such a certificate. Default: infer, inspect, health.
    pub tls_client_rights: Option<Vec<String>>,
    /// File of bearer tokens: callers over TCP need one of them, or a certificate.
    pub token_file: Option<PathBuf>,
    /// Rights of callers over TCP who show neither. Default: infer, inspect, health; with a token file only health.
    pub tcp_rights: Option<Vec<String>>,
    /// Users that have the rights control and settings on the control socket, beside the server's own and root.
    pub control_uids: Vec<u32>,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates, if clients need one.
    pub client_ca: Option<PathBuf>,
}

/// The checked section.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// What TLS needs; `None`: TCP listeners are plain.
    pub tls: Option<TlsFiles>,
    /// Rights of callers with a certificate, if the file names them.
    pub client_rights: Option<Rights>,
    /// File of bearer tokens.
    pub token_file: Option<PathBuf>,
    /// Rights of callers over TCP who show nothing, if the file names them.
    pub tcp_rights: Option<Rights>,
    /// Users that may control the server beside its own and root.
    pub control_uids: Vec<u32>,
}

impl AccessSection {
    pub(super) fn checked(self) -> Result<AccessConfig, ConfigError> {
        let is_named = |path: &Option<PathBuf>| match path {
            Some(path) => format!("{:?}", path.display().to_string()),
            None => "not there".to_owned(),
        };
        let needs_certificate = self.tls_key.is_some() || self.tls_client_ca.is_some();
        check(
            self.tls_certificate.is_some() || !needs_certificate,
            "access.tls_certificate",
            is_named(&self.tls_certificate),
            "tls_key and tls_client_ca need it",
        )?;
        check(
            self.tls_key.is_some() || self.tls_certificate.is_none(),
            "access.tls_key",
            is_named(&self.tls_key),
            "tls_certificate needs it",
        )?;
        check(
            self.tls_client_ca.is_some() || self.tls_client_rights.is_none(),
            "access.tls_client_ca",
            is_named(&self.tls_client_ca),
            "tls_client_rights needs it",
        )?;
        let named =
            |key, names: Option<Vec<String>>| names.map(|names| rights(key, names)).transpose();
        let client_rights = named("access.tls_client_rights", self.tls_client_rights)?;
        let tls = self
            .tls_certificate
            .zip(self.tls_key)
            .map(|(certificate, key)| TlsFiles {
                certificate,
                key,
                client_ca: self.tls_client_ca,
            });
        Ok(AccessConfig {
            tls,
            client_rights,
            token_file: self.token_file,
            tcp_rights: named("access.tcp_rights", self.tcp_rights)?,
            control_uids: self.control_uids,
        })
    }
}

fn rights(key: &str, names: Vec<String>) -> Result<Rights, ConfigError> {
    let mut rights = Rights::default();
    for name in names {
        let right = Right::from_name(&name);
        check(
            right.is_some(),
            key,
            format!("{name:?}"),
            "rights are infer, inspect, health, control, regions, settings",
        )?;
        rights = rights.with(Rights::of(right.as_slice()));
    }
    Ok(rights)
}
