//! `adjoin sessions`.

use std::process::ExitCode;

use adjoin_control_api::control::Session;
use clap::Args;
use serde_json::{Value, json};

use crate::Failure;
use crate::control::{Control, SocketDirArguments};
use crate::table::Column::{Number, Text};
use crate::{interrupt, output, table};

/// Lists the sessions that clients have open with a server.
#[derive(Debug, Args)]
pub(crate) struct SessionsArguments {
    #[command(flatten)]
    server: SocketDirArguments,

    /// Writes JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &SessionsArguments) -> Result<ExitCode, Failure> {
    let mut sessions = interrupt::block_on(async {
        let mut control = Control::connect(&arguments.server.socket_dir).await?;
        Ok(control.sessions().await?)
    })?;
    sessions.sort_by_key(|session| session.session_id);
    if arguments.json {
        let sessions: Vec<Value> = sessions.iter().map(to_json).collect();
        output::print_json(&json!({ "sessions": sessions }))?;
    } else {
        output::print(&to_text(&sessions))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_text(sessions: &[Session]) -> String {
    let columns = [
        Number("SESSION"),
        Text("CLIENT"),
        Number("USER"),
        Number("MEMORY"),
        Number("IN FLIGHT"),
        Number("REQUESTS"),
        Number("AGE"),
    ];
    let row = |session: &Session| {
        vec![
            session.session_id.to_string(),
            if session.client_name.is_empty() {
                "-".into()
            } else {
                session.client_name.clone()
            },
            session.uid.to_string(),
            output::bytes_text(session.region_bytes),
            session.in_flight.to_string(),
            session.request_count.to_string(),
            age_text(session.age_ms),
        ]
    };
    table::render(&columns, sessions.iter().map(row))
}

/// A time in its two largest units.
fn age_text(age_ms: u64) -> String {
    let seconds = age_ms / 1000;
    match seconds {
        0 => format!("{age_ms}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn to_json(session: &Session) -> Value {
    json!({
        "session_id": session.session_id,
        "client_name": session.client_name,
        "uid": session.uid,
        "region_bytes": session.region_bytes,
        "in_flight": session.in_flight,
        "request_count": session.request_count,
        "age_ms": session.age_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        let texts = [5, 59_999, 61_000, 3_720_000, 90_000_000].map(age_text);
        assert_eq!(texts, ["5ms", "59s", "1m1s", "1h2m", "1d1h"]);
    }
}
