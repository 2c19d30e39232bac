//! `sluicegate ledger`: looks at the files of a ledger, whether its server runs or not.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Overrides;
use crate::launch::Exit;
use crate::launch::cli::DEFAULT_FILE;
use crate::launch::export::{ExportArgs, export};
use crate::ledger::{FileError, vacuum, verify};
use crate::stdx::units::counted;

/// What can be done with the files of a ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Look for damage; also while a server is using them. Exit 0, 1 when something is wrong, or 78 when
    /// there is no ledger.
    Verify(FolderArgs),
    /// Give space that holds nothing back to the file system. Not while a server is using them (exit 75).
    Vacuum(FolderArgs),
    /// Write sessions to standard output, the newest first; also while a server is using the files.
    Export {
        /// Which ledger.
        #[command(flatten)]
        folder: FolderArgs,
        /// Which sessions.
        #[command(flatten)]
        args: Box<ExportArgs>,
    },
}

/// Which ledger.
#[derive(Debug, Args)]
pub struct FolderArgs {
    /// The folder of the ledger [default: `ledger.directory` of the configuration].
    directory: Option<PathBuf>,
    /// The configuration file [default: ./sluicegate.toml if it exists].
    #[arg(short, long, value_name = "FILE", conflicts_with = "directory")]
    config: Option<PathBuf>,
}

/// Does it.
#[must_use]
pub fn ledger(command: &LedgerCommand) -> Exit {
    let result = match command {
        LedgerCommand::Verify(folder) => folder.directory().map(|directory| verify_all(&directory)),
        LedgerCommand::Vacuum(folder) => folder.directory().map(|directory| vacuum_all(&directory)),
        LedgerCommand::Export { folder, args } => folder.directory().map(|directory| export(&directory, args)),
    };
    result.unwrap_or_else(|exit| exit)
}

impl FolderArgs {
    /// The folder that is meant; it must be there.
    ///
    /// # Errors
    /// What the process ends with, after it was said why.
    pub fn directory(&self) -> Result<PathBuf, Exit> {
        let directory = match &self.directory {
            Some(directory) => directory.clone(),
            None => self.configured()?,
        };
        if directory.is_dir() {
            return Ok(directory);
        }
        eprintln!("sluicegate: {}: there is no such folder", directory.display());
        Err(Exit::Configuration)
    }

    fn configured(&self) -> Result<PathBuf, Exit> {
        let found = PathBuf::from(DEFAULT_FILE);
        let path = self.config.clone().or_else(|| found.exists().then_some(found));
        let env = |name: &str| std::env::var(name).ok();
        let loaded = crate::config::load(path.as_deref(), &Overrides::default(), &env).map_err(|refused| {
            eprintln!("{refused}");
            Exit::Configuration
        })?;
        let directory = loaded.config.ledger.directory;
        if directory.is_empty() {
            eprintln!("sluicegate: name the folder, or a configuration with ledger.directory");
            return Err(Exit::Configuration);
        }
        Ok(directory.into())
    }
}

fn verify_all(directory: &std::path::Path) -> Exit {
    let reports = match verify::verify(directory) {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("sluicegate: {}: {error}", directory.display());
            return Exit::Resource;
        }
    };
    if reports.is_empty() {
        eprintln!("sluicegate: {}: there is no ledger in this folder", directory.display());
        return Exit::Configuration;
    }
    for report in &reports {
        let name = report.path.display();
        if report.is_newer {
            println!("{name}: written by a newer version; not looked at");
            continue;
        }
        println!(
            "{name}: {} ({}, {}, {} to be told)",
            if report.damage.is_empty() { "whole" } else { "DAMAGED" },
            counted(report.sessions, "session"),
            counted(report.attempts, "attempt"),
            report.outbox,
        );
        for damage in &report.damage {
            println!("{name}: {damage}");
        }
    }
    let bad = reports.iter().filter(|report| !report.is_whole()).count();
    println!("{}, {bad} with something wrong", counted(reports.len(), "file"));
    if bad == 0 { Exit::Clean } else { Exit::Failed }
}

fn vacuum_all(directory: &std::path::Path) -> Exit {
    match vacuum(directory) {
        Ok(files) => {
            for (name, before, after) in &files {
                println!("{name}: {before} bytes before, {after} after");
            }
            Exit::Clean
        }
        Err(error) => {
            eprintln!("sluicegate: {error}");
            match error {
                FileError::InUse { .. } => Exit::Temporary,
                FileError::Newer { .. } | FileError::Foreign { .. } => Exit::Configuration,
                FileError::Io { .. } => Exit::Resource,
                FileError::Database { .. } => Exit::Failed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn args(directory: &Path) -> FolderArgs {
        FolderArgs { directory: Some(directory.to_owned()), config: None }
    }

    #[test]
    fn a_ledger_is_verified_and_vacuumed_with_the_exit_codes_of_the_manual() {
        let folder = tempfile::tempdir().unwrap();
        let verify = || ledger(&LedgerCommand::Verify(args(folder.path())));
        let vacuum = || ledger(&LedgerCommand::Vacuum(args(folder.path())));
        let missing = args(&folder.path().join("missing"));
        assert_eq!(ledger(&LedgerCommand::Verify(missing)), Exit::Configuration);
        assert_eq!((verify(), vacuum()), (Exit::Configuration, Exit::Clean), "an empty folder is no ledger");

        let settings = crate::ledger::Settings {
            directory: folder.path().to_str().unwrap().to_owned(),
            ..crate::ledger::Settings::default()
        };
        let wall = crate::stdx::clock::WallAnchor::now();
        let opened = crate::ledger::open(&settings, wall, std::time::Instant::now()).unwrap();
        assert_eq!((verify(), vacuum()), (Exit::Clean, Exit::Temporary), "a server is using it");
        drop(opened);
        fs::write(folder.path().join("2026-11-20.db"), vec![7; 4_096]).unwrap();
        assert_eq!((verify(), vacuum()), (Exit::Failed, Exit::Failed));
    }
}
