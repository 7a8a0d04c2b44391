//! Tokens of `OpenSession`: 128 random bits that one user may show once, soon, on the attach socket.

use std::collections::HashMap;

use adjoin_schema::attach::Token;
use adjoin_schema::layout::SessionLayout;
use adjoin_schema::limits::TOKEN_LIFE_MS;
use parking_lot::Mutex;
use rustix::rand::GetRandomFlags;

/// Most tokens that wait to be shown; beyond it the oldest are forgotten.
const TOKENS_MAX: usize = 1024;

/// What was settled when a token was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) uid: u32,
    pub(super) layout: SessionLayout,
    pub(super) client_name: String,
    expires_ns: u64,
}

/// Tokens that were given out and not shown.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    waiting: Mutex<HashMap<Token, Promise>>,
}

/// 128 random bits; `None` if the system has none to give, which it has from early boot on.
pub(super) fn random_token() -> Option<Token> {
    let mut token = Token::default();
    let filled = rustix::rand::getrandom(&mut token, GetRandomFlags::empty()).ok()?;
    (filled == token.len()).then_some(token)
}

impl Tokens {
    /// Gives a token out.
    pub(super) fn give(
        &self,
        uid: u32,
        layout: SessionLayout,
        client_name: String,
        now_ns: u64,
    ) -> Option<Token> {
        let token = random_token()?;
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, promise| promise.expires_ns > now_ns);
        if waiting.len() >= TOKENS_MAX {
            let oldest = waiting
                .iter()
                .min_by_key(|(_, promise)| promise.expires_ns)
                .map(|(token, _)| *token);
            oldest.and_then(|token| waiting.remove(&token));
        }
        let expires_ns = now_ns + TOKEN_LIFE_MS * 1_000_000;
        waiting.insert(
            token,
            Promise {
                uid,
                layout,
                client_name,
                expires_ns,
            },
        );
        Some(token)
    }

    /// Takes a token back; `None` if it was never given out, was shown before, has expired, or is another
    /// user's. A token that the wrong user shows is spent all the same.
    pub(super) fn redeem(&self, token: &Token, uid: u32, now_ns: u64) -> Option<Promise> {
        let promise = self.waiting.lock().remove(token)?;
        (promise.uid == uid && promise.expires_ns > now_ns).then_some(promise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(tokens: &Tokens, now_ns: u64) -> Token {
        let layout = SessionLayout::new(1 << 20, 1 << 20, 64).unwrap();
        tokens.give(7, layout, "me".into(), now_ns).unwrap()
    }

    #[test]
    fn a_token_works_once_for_its_user_and_not_for_long() {
        let tokens = Tokens::default();
        let token = give(&tokens, 0);
        assert_eq!(tokens.redeem(&token, 7, 1).unwrap().client_name, "me");
        assert_eq!(tokens.redeem(&token, 7, 1), None);
        let token = give(&tokens, 0);
        assert_eq!(tokens.redeem(&token, 8, 1), None);
        assert_eq!(tokens.redeem(&token, 7, 1), None);
        let token = give(&tokens, 0);
        assert_eq!(tokens.redeem(&token, 7, TOKEN_LIFE_MS * 1_000_000), None);
        assert_eq!(tokens.redeem(&[0; 16], 7, 1), None);
    }

    #[test]
    fn tokens_that_nobody_shows_do_not_pile_up() {
        let tokens = Tokens::default();
        for at in 0..2 * TOKENS_MAX as u64 {
            give(&tokens, at);
        }
        assert_eq!(tokens.waiting.lock().len(), TOKENS_MAX);
        give(&tokens, u64::MAX / 2);
        assert_eq!(tokens.waiting.lock().len(), 1);
    }
}
