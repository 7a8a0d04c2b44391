//! Who may do what: one check in front of all gRPC methods (`GrpcGuard`) and one in front of all HTTP routes
//! (`guarded`), both by the one `table`. Nothing behind them asks who the caller is but where sessions and regions
//! have an owner.

mod guard;
mod right;
mod table;
mod token_file;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use thiserror::Error;

pub(super) use guard::{GrpcGuard, guarded};
pub use right::{Right, Rights};
pub use token_file::TokenFileError;

use super::listen::{Caller, Peer};
use crate::config::access::AccessConfig;
use table::Needs;
use token_file::TokenFile;

/// What callers over TCP may do where nobody has to say who they are.
const OPEN: Rights = Rights::of(&[Right::Infer, Right::Inspect, Right::Health]);
/// What users who are allowed to reach the server's sockets may do there.
const LOCAL: Rights = Rights::of(&[Right::Infer, Right::Inspect, Right::Health, Right::Regions]);
/// What users who run the server may do on its sockets, whether or not they may run models.
const OPERATOR: Rights = Rights::of(&[
    Right::Inspect,
    Right::Health,
    Right::Control,
    Right::Settings,
]);
/// What everybody may do.
const ANYBODY: Rights = Rights::of(&[Right::Health]);

/// Decides what a caller may do.
#[derive(Debug)]
pub struct Access {
    allow_uids: Vec<u32>,
    control_uids: Vec<u32>,
    own_uid: u32,
    tokens: Option<TokenFile>,
    certificate_rights: Rights,
    /// Of callers over TCP who show nothing.
    open_rights: Rights,
    methods: Needs,
    routes: Needs,
}

/// Why a call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    /// There is no line for it in the table.
    #[error("there is no such method or route")]
    Unknown,
    /// It came without a token.
    #[error(
        "this call needs a token with the right \"{0}\"; send it as \"authorization: Bearer TOKEN\""
    )]
    TokenMissing(Right),
    /// Its token is not one of the file's.
    #[error("the token of this call is not known; the call needs one with the right \"{0}\"")]
    TokenWrong(Right),
    /// Its caller is known, or need not be, and may not do this.
    #[error("this call needs the right \"{0}\", which its caller does not have")]
    Denied(Right),
}

/// The token of a call.
enum Presented {
    None,
    Unknown,
    Known(usize, Rights),
}

impl Access {
    /// Reads what the configuration names. `allow_uids` are the users that may open sessions; none: all.
    ///
    /// # Errors
    /// If the token file cannot be used.
    pub fn load(config: &AccessConfig, allow_uids: &[u32]) -> Result<Self, TokenFileError> {
        let tokens = config.token_file.as_deref().map(TokenFile::read);
        let is_open = tokens.is_none();
        let unnamed = if is_open { OPEN } else { Rights::default() };
        Ok(Self {
            allow_uids: allow_uids.to_vec(),
            control_uids: config.control_uids.clone(),
            own_uid: rustix::process::geteuid().as_raw(),
            open_rights: config.tcp_rights.unwrap_or(unnamed),
            tokens: tokens.transpose()?,
            certificate_rights: config.client_rights.unwrap_or(OPEN),
            methods: table::methods(),
            routes: table::routes(),
        })
    }

    /// Whether a caller may call a gRPC method; which token it showed, if one.
    fn check_method(
        &self,
        path: &str,
        caller: Option<&Caller>,
        headers: &HeaderMap,
    ) -> Result<Option<usize>, Refusal> {
        let right = self.methods.get(path).ok_or(Refusal::Unknown)?;
        self.check(*right, caller, headers)
    }

    /// Whether a caller may use a route, by its template; which token it showed, if one.
    fn check_route(
        &self,
        template: &str,
        caller: Option<&Caller>,
        headers: &HeaderMap,
    ) -> Result<Option<usize>, Refusal> {
        let right = self.routes.get(template).ok_or(Refusal::Unknown)?;
        self.check(*right, caller, headers)
    }

    fn check(
        &self,
        right: Right,
        caller: Option<&Caller>,
        headers: &HeaderMap,
    ) -> Result<Option<usize>, Refusal> {
        if ANYBODY.contains(right) {
            return Ok(None);
        }
        let denied = Refusal::Denied(right);
        let mut token = None;
        let (rights, refusal) = match caller.map(|caller| &caller.peer) {
            None => (Rights::default(), denied),
            Some(Peer::Unix { uid, .. }) => (self.rights_of_user(*uid), denied),
            Some(Peer::Tcp { certificate, .. }) => {
                let known = certificate.is_some();
                let own = if known {
                    self.certificate_rights
                } else {
                    self.open_rights
                };
                match self.presented(headers) {
                    Presented::Known(index, rights) => {
                        token = Some(index);
                        (own.with(rights), denied)
                    }
                    Presented::Unknown => return Err(Refusal::TokenWrong(right)),
                    Presented::None if known || self.tokens.is_none() => (own, denied),
                    Presented::None => (own, Refusal::TokenMissing(right)),
                }
            }
        };
        if rights.contains(right) {
            Ok(token)
        } else {
            Err(refusal)
        }
    }

    fn rights_of_user(&self, uid: u32) -> Rights {
        let is_allowed = self.allow_uids.is_empty() || self.allow_uids.contains(&uid);
        let runs_it = uid == self.own_uid || uid == 0 || self.control_uids.contains(&uid);
        let rights = if is_allowed { LOCAL } else { ANYBODY };
        if runs_it {
            rights.with(OPERATOR)
        } else {
            rights
        }
    }

    /// The token that a call brings. Without a token file none is looked at.
    fn presented(&self, headers: &HeaderMap) -> Presented {
        let Some(tokens) = &self.tokens else {
            return Presented::None;
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Presented::None;
        };
        let token = value
            .as_bytes()
            .split_at_checked(7)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token.trim_ascii());
        match token.filter(|_| values.next().is_none()) {
            Some(token) => match tokens.find(token) {
                Some((index, rights)) => Presented::Known(index, rights),
                None => Presented::Unknown,
            },
            None => Presented::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
