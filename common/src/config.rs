//! Configuration: defaults, then a file, then the environment; whatever comes later wins. The one place that reads the environment.

use std::path::Path;

use config::{Config, Environment, File, FileFormat};
use serde::{Serialize, de::DeserializeOwned};

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
    /// A setting has a name or a value that is not known.
    #[error("{0}; `--help` lists every setting")]
    Setting(String),
}

/// The settings `T`: its defaults, overlaid with the TOML `file`, if one is named, and with the variables `CHAT_SECTION__KEY`
/// of the environment (`CHAT_NODES=5`, `CHAT_SOCKET__FRAME_BYTES=65536`). A setting that `T` does not know is refused.
///
/// # Errors
/// [`ConfigError`].
pub fn load<T>(file: Option<&Path>) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let setting = |error: config::ConfigError| ConfigError::Setting(error.to_string());
    let mut builder = Config::builder().add_source(Config::try_from(&T::default()).map_err(setting)?);
    if let Some(path) = file {
        let named = |why: String| ConfigError::File { file: path.display().to_string(), why };
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let source = Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build();
        builder = builder.add_source(source.map_err(|error| named(error.to_string()))?);
    }
    let environment =
        Environment::with_prefix("CHAT").prefix_separator("_").separator("__").try_parsing(true);
    let config = builder.add_source(environment).build().map_err(setting)?;
    config.try_deserialize().map_err(setting)
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
        let error = load::<Settings>(Some(file("nods = 5\n").path())).unwrap_err();
        assert!(error.to_string().contains("nods"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = load::<Settings>(Some(Path::new("/nowhere/chat.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/chat.toml"), "{error}");
    }
}
