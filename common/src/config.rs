//! Configuration: defaults, then a file, then the environment; whatever comes later wins. The one place that reads the environment.

use std::{fmt::Write as _, path::Path};

use config::{Config, Environment, File, FileFormat};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there, or not TOML.
    #[error("the configuration file {file}: {why}")]
    File {
        /// As it was named.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A setting has a value that is none.
    #[error("{0}; `--help` lists every setting")]
    Setting(String),
    /// Nobody knows a setting of this name.
    #[error("{place}: there is no setting `{key}`; `--help` lists every setting")]
    Unknown {
        /// The file, or the variable of the environment.
        place: String,
        /// The setting, as a file would name it.
        key: String,
    },
}

/// The settings `T`: its defaults, overlaid with the TOML `file`, if one is named, and with the variables `CHAT_SECTION__KEY`
/// of the environment (`CHAT_NODES=5`, `CHAT_SOCKET__FRAME_BYTES=65536`). A setting that `T` does not know is refused. Lists are
/// written with commas in the environment.
///
/// # Errors
/// [`ConfigError`].
pub fn load<T>(file: Option<&Path>) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let setting = |error: config::ConfigError| ConfigError::Setting(error.to_string());
    let defaults = flat(&T::default()).map_err(ConfigError::Setting)?;
    let mut builder = Config::builder().add_source(Config::try_from(&T::default()).map_err(setting)?);
    let mut places = Vec::new();
    if let Some(path) = file {
        let named = |why: String| ConfigError::File { file: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let source = Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build();
        let source = source.map_err(|error| named(error.to_string()))?;
        places.push((Some(path), source.clone()));
        builder = builder.add_source(source);
    }
    let mut environment = Environment::with_prefix("CHAT")
        .prefix_separator("_")
        .separator("__")
        .try_parsing(true)
        .list_separator(",");
    let mut lists = 0;
    for (key, value) in &defaults {
        if value.is_array() {
            environment = environment.with_list_parse_key(key);
            lists += 1;
        }
    }
    if lists == 0 {
        // Without a list to look for, every value would be taken for one.
        environment = environment.with_list_parse_key("");
    }
    let environment = Config::builder().add_source(environment).build().map_err(setting)?;
    places.push((None, environment.clone()));
    let config = builder.add_source(environment).build().map_err(setting)?;
    config.try_deserialize().map_err(|error| match unknown(&defaults, places) {
        Some((place, key)) => ConfigError::Unknown { place, key },
        None => setting(error),
    })
}

/// The first setting that is not among the `defaults`, and where it stands: the file, or else the environment. Asked only once the whole
/// is refused: the environment may hold what is meant for another program.
fn unknown(defaults: &[(String, Value)], places: Vec<(Option<&Path>, Config)>) -> Option<(String, String)> {
    let is_known = |key: &str| {
        defaults.iter().any(|(known, _)| {
            let below =
                |whole: &str, part: &str| whole.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
            known == key || below(key, known) || below(known, key)
        })
    };
    places.into_iter().find_map(|(file, source)| {
        let settings = flat(&source.try_deserialize::<Value>().ok()?).ok()?;
        let (key, _) = settings.into_iter().find(|(key, _)| !is_known(key))?;
        let place = match file {
            Some(file) => format!("the configuration file {}", file.display()),
            None => format!("the variable {}", variable(&key)),
        };
        Some((place, key))
    })
}

/// The variable of the environment for a setting.
fn variable(key: &str) -> String {
    format!("CHAT_{}", key.replace('.', "__").to_uppercase())
}

/// Every setting of `settings`, one a line: its key in a file, its value as a file has it.
pub fn listed<T: Serialize>(settings: &T) -> Vec<(String, String)> {
    let values = flat(settings).unwrap_or_default();
    values.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

/// A table of every setting of `T` for `--help`, in the order of `meanings`: key, variable, default, and what they say of it.
pub fn table<T: Serialize + Default>(meanings: &[(&str, &str)]) -> String {
    let place = |key: &str| meanings.iter().position(|(named, _)| *named == key).unwrap_or(meanings.len());
    let mut settings = flat(&T::default()).unwrap_or_default();
    settings.sort_by_key(|(key, _)| place(key));
    let rows: Vec<_> = settings
        .into_iter()
        .map(|(key, value)| {
            let variable = variable(&key);
            let value = match value {
                Value::Null => "(none)".to_owned(),
                Value::String(text) if text.is_empty() => "(none)".to_owned(),
                Value::String(text) => text,
                Value::Array(items) if items.is_empty() => "[]".to_owned(),
                other => other.to_string(),
            };
            let meaning = meanings.iter().find(|(named, _)| *named == key).map_or("", |(_, meaning)| meaning);
            (key, variable, value, meaning)
        })
        .collect();
    let wide = |of: fn(&(String, String, String, &str)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (keys, variables) = (wide(|row| row.0.len()), wide(|row| row.1.len()));
    let mut table = String::new();
    for (key, variable, value, meaning) in &rows {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "  {key:keys$}  {variable:variables$}  {value}\n      {meaning}");
    }
    table
}

/// Keys with their values; sections are walked into, lists are not.
fn flat<T: Serialize>(settings: &T) -> Result<Vec<(String, Value)>, String> {
    fn walk(prefix: &str, value: Value, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(section) => {
                for (key, value) in section {
                    let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    walk(&key, value, found);
                }
            }
            value => found.push((prefix.to_owned(), value)),
        }
    }
    let mut found = Vec::new();
    walk("", serde_json::to_value(settings).map_err(|error| error.to_string())?, &mut found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        nodes: u16,
        socket: Socket,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Socket {
        frame_bytes: usize,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { nodes: 3, socket: Socket::default() }
        }
    }

    impl Default for Socket {
        fn default() -> Self {
            Self { frame_bytes: 65_536 }
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_file_changes_what_it_names() {
        let settings: Settings = load(Some(file("[socket]\nframe_bytes = 1024\n").path())).unwrap();
        assert_eq!(settings, Settings { nodes: 3, socket: Socket { frame_bytes: 1024 } });
    }

    #[test]
    fn a_setting_that_nobody_knows_is_refused_by_name() {
        let file = file("nods = 5\n");
        let error = load::<Settings>(Some(file.path())).unwrap_err().to_string();
        let expected =
            format!("the configuration file {}: there is no setting `nods`", file.path().display());
        assert!(error.starts_with(&expected), "{error}");
        let defaults = flat(&Settings::default()).unwrap();
        let source = Config::builder().set_override("socket.frame_bits", 8).unwrap();
        let source = source.set_override("socket.frame_bytes", 8).unwrap().build().unwrap();
        let found = unknown(&defaults, vec![(None, source)]).unwrap();
        let expected = ("the variable CHAT_SOCKET__FRAME_BITS".to_owned(), "socket.frame_bits".to_owned());
        assert_eq!(found, expected);
    }

    #[test]
    fn every_setting_is_listed_with_its_variable_and_default_in_the_order_of_the_meanings() {
        let table = table::<Settings>(&[("socket.frame_bytes", "Bytes of a frame."), ("nodes", "How many.")]);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        let expected: [&[&str]; 4] = [
            &["socket.frame_bytes", "CHAT_SOCKET__FRAME_BYTES", "65536"],
            &["Bytes", "of", "a", "frame."],
            &["nodes", "CHAT_NODES", "3"],
            &["How", "many."],
        ];
        assert_eq!(lines, expected);
        assert_eq!(listed(&Settings::default())[0], ("nodes".to_owned(), "3".to_owned()));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load::<Settings>(Some(Path::new("/nowhere/chat.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/chat.toml"), "{error}");
    }
}
