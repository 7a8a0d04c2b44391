//! Settings that the protocol can change while the server runs: what is logged. Those that name files are refused: no
//! caller sets a path of the server.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use adjoin_control_api::inference as api;
use adjoin_control_api::inference::log_settings_request::setting_value::ParameterChoice as Asked;
use adjoin_control_api::inference::log_settings_response::SettingValue;
use adjoin_control_api::inference::log_settings_response::setting_value::ParameterChoice as Told;
use adjoin_control_api::inference::trace_setting_response::SettingValue as TraceValue;
use adjoin_oip::{Fault, Kind};
use parking_lot::Mutex;

use super::Oip;

/// Puts a level of logging into force; how is the program's business.
pub type SetLevel = Arc<dyn Fn(&'static str) -> Result<(), String> + Send + Sync>;

/// What is logged.
#[derive(Clone)]
pub struct LogSettings {
    levels: Arc<Mutex<Levels>>,
    set_level: SetLevel,
}

impl fmt::Debug for LogSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSettings")
            .field("levels", &self.levels)
            .finish_non_exhaustive()
    }
}

/// The protocol's switches. They are levels here: the most detailed that is on decides.
#[derive(Clone, Copy, Debug)]
struct Levels {
    error: bool,
    warning: bool,
    info: bool,
    verbose: u32,
}

impl Levels {
    fn level(self) -> &'static str {
        match self {
            Self { verbose: 2.., .. } => "trace",
            Self { verbose: 1, .. } => "debug",
            Self { info: true, .. } => "info",
            Self { warning: true, .. } => "warn",
            Self { error: true, .. } => "error",
            _ => "off",
        }
    }
}

impl LogSettings {
    /// Settings of a server that logs from level info, and how to change that.
    #[must_use]
    pub fn new(set_level: SetLevel) -> Self {
        let levels = Levels {
            error: true,
            warning: true,
            info: true,
            verbose: 0,
        };
        Self {
            levels: Arc::new(Mutex::new(levels)),
            set_level,
        }
    }
}

fn wrong(name: &str, expected: &str) -> Fault {
    Fault::invalid(format!("log setting '{name}' takes {expected}"))
}

impl Oip {
    /// Changes what is asked, and tells what holds.
    ///
    /// # Errors
    /// If a setting is unknown, has a value of another type, or names a file.
    pub fn log_settings(
        &self,
        request: &api::LogSettingsRequest,
    ) -> Result<api::LogSettingsResponse, Fault> {
        let mut levels = self.log.levels.lock();
        let mut wanted = *levels;
        for (name, value) in &request.settings {
            // A setting without a value is asked for, not set.
            let Some(choice) = &value.parameter_choice else {
                continue;
            };
            let flag = match choice {
                Asked::BoolParam(value) => Some(*value),
                Asked::Uint32Param(_) | Asked::StringParam(_) => None,
            };
            let flag = || flag.ok_or_else(|| wrong(name, "true or false"));
            match (name.as_str(), choice) {
                ("log_error", _) => wanted.error = flag()?,
                ("log_warning", _) => wanted.warning = flag()?,
                ("log_info", _) => wanted.info = flag()?,
                ("log_verbose_level", Asked::Uint32Param(level)) => wanted.verbose = *level,
                ("log_verbose_level", _) => return Err(wrong(name, "a number from 0")),
                ("log_file", Asked::StringParam(path)) if path.is_empty() => {}
                ("log_file", _) => {
                    let text = "log setting 'log_file': the log goes to standard error; no call sets a path";
                    return Err(Fault::new(Kind::Unsupported, text));
                }
                ("log_format", Asked::StringParam(format)) if format == "default" => {}
                ("log_format", _) => {
                    let text = "log setting 'log_format' is set at the start, by --log-format; here it takes \"default\"";
                    return Err(Fault::new(Kind::Unsupported, text));
                }
                _ => return Err(Fault::invalid(format!("unknown log setting '{name}'"))),
            }
        }
        if wanted.level() != levels.level() {
            (self.log.set_level)(wanted.level())
                .map_err(|reason| Fault::new(Kind::Internal, reason))?;
            tracing::info!(level = wanted.level(), "log level was changed by a call");
        }
        *levels = wanted;
        let settings = [
            ("log_error", Told::BoolParam(wanted.error)),
            ("log_warning", Told::BoolParam(wanted.warning)),
            ("log_info", Told::BoolParam(wanted.info)),
            ("log_verbose_level", Told::Uint32Param(wanted.verbose)),
            ("log_file", Told::StringParam(String::new())),
            ("log_format", Told::StringParam("default".into())),
        ];
        let setting = |(name, told): (&str, Told)| {
            (
                name.to_owned(),
                SettingValue {
                    parameter_choice: Some(told),
                },
            )
        };
        Ok(api::LogSettingsResponse {
            settings: settings.into_iter().map(setting).collect::<HashMap<_, _>>(),
        })
    }

    /// Tells what is traced. It is set in the configuration, so nothing can be changed here but to what it is.
    ///
    /// # Errors
    /// If a setting is unknown, or another value is asked for.
    pub fn trace_setting(
        &self,
        request: &api::TraceSettingRequest,
    ) -> Result<api::TraceSettingResponse, Fault> {
        let settings = trace_settings();
        for (name, asked) in &request.settings {
            let Some(holds) = settings.get(name) else {
                return Err(Fault::invalid(format!("unknown trace setting '{name}'")));
            };
            // No value asks for the default, which is what holds.
            if !asked.value.is_empty() && asked.value != holds.value {
                let (asked, holds) = (&asked.value, &holds.value);
                let text = format!(
                    "trace setting '{name}' is {holds:?} by the server's configuration, [trace]; it cannot be set to {asked:?}"
                );
                return Err(Fault::new(Kind::Unsupported, text));
            }
        }
        Ok(api::TraceSettingResponse { settings })
    }
}

fn trace_settings() -> HashMap<String, TraceValue> {
    let settings = [
        ("trace_level", "OFF"),
        ("trace_rate", "0"),
        ("trace_count", "-1"),
        ("log_frequency", "0"),
        ("trace_file", ""),
        ("trace_mode", "opentelemetry"),
    ];
    let setting = |(name, value): (&str, &str)| {
        (
            name.to_owned(),
            TraceValue {
                value: vec![value.to_owned()],
            },
        )
    };
    settings.into_iter().map(setting).collect()
}
