//! What an operator may choose about attachments.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::{content, objects::Objects};

/// What an operator may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttachmentSettings {
    /// Where the files are: `file:FOLDER`, or `s3://BUCKET[/PREFIX][?region=…&endpoint=…]`; empty: none are taken.
    pub url: String,
    /// The largest file that is taken, in bytes.
    pub max_bytes: u64,
    /// Which types are taken, by their content: `image/png`, `image/*`, `*/*`.
    pub types: Vec<String>,
    /// Which of them are refused all the same.
    pub refused_types: Vec<String>,
    /// Seconds after which a file is collected that no message refers to. Longer than the storage writers may ever lag.
    pub unused_after: u64,
    /// Seconds that one upload may take.
    pub upload_time: u64,
}

impl Default for AttachmentSettings {
    /// 100 MiB take an hour at 240 kbit/s.
    fn default() -> Self {
        let programs = [
            "application/vnd.microsoft.portable-executable",
            "application/x-executable",
            "application/x-mach-binary",
            "application/x-llvm",
        ];
        Self {
            url: String::new(),
            max_bytes: 100 * 1024 * 1024,
            types: vec!["*/*".to_owned()],
            refused_types: programs.map(str::to_owned).to_vec(),
            unused_after: 24 * 3_600,
            upload_time: 3_600,
        }
    }
}

impl AttachmentSettings {
    /// The same, in this folder when they name no place.
    #[must_use]
    pub fn or_in(mut self, folder: &Path) -> Self {
        if self.url.is_empty() {
            self.url = format!("file:{}", folder.display());
        }
        self
    }

    /// What is wrong with them. Makes the folder when there is none.
    ///
    /// # Errors
    /// In words that say what to do.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=1 << 40).contains(&self.max_bytes),
            "attachments.max_bytes: 1 to 2^40; none at all are taken when attachments.url is empty"
        );
        ensure!(self.unused_after >= 1, "attachments.unused_after: at least 1 second");
        ensure!((1..=86_400).contains(&self.upload_time), "attachments.upload_time: 1 to 86400 seconds");
        for pattern in self.types.iter().chain(&self.refused_types) {
            let good = content::is_pattern(pattern);
            ensure!(good, "attachments.types: {pattern:?} is no type such as image/png, image/* or */*");
        }
        if !self.url.is_empty() {
            let shown = common::engines::masked(&self.url);
            Objects::open(&self.url).map_err(|why| anyhow::anyhow!("attachments.url: {shown:?}: {why}"))?;
        }
        Ok(())
    }

    /// How often is looked for what can be collected.
    pub(super) fn sweep_every(&self) -> Duration {
        Duration::from_secs((self.unused_after.min(self.upload_time) / 6).clamp(1, 600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn me_7_what_is_wrong_with_the_settings_is_named() {
        AttachmentSettings::default().check().unwrap();
        type Spoil = fn(&mut AttachmentSettings);
        let cases: [(Spoil, &str); 5] = [
            (|settings| settings.max_bytes = 0, "max_bytes"),
            (|settings| settings.unused_after = 0, "unused_after"),
            (|settings| settings.upload_time = 100_000, "upload_time"),
            (|settings| settings.types = vec!["pictures".into()], "\"pictures\""),
            (|settings| settings.url = "ftp://key:secret@host".into(), "known are file:FOLDER"),
        ];
        for (spoil, expected) in cases {
            let mut settings = AttachmentSettings::default();
            spoil(&mut settings);
            let said = settings.check().unwrap_err().to_string();
            assert!(said.contains(expected) && !said.contains("secret"), "{said}");
        }
    }
}
