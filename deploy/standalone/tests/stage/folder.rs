//! A test's folder. It is gone when the test is over, and stays when the test falls: data, journals and logs are what a person needs then.

use std::ops::Deref;

use tempfile::TempDir;

pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Deref for Folder {
    type Target = TempDir;

    fn deref(&self) -> &TempDir {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            let path = self.0.path().display();
            eprintln!("kept: {path}; to judge again: loadtest check --judge-only --journal {path}/journal");
        }
    }
}
