//! The configuration as an operator meets it: what is accepted, what is refused, in which words, at which place.

mod contradictions;
mod guide;
mod hostile;
mod machine;
mod mistakes;
mod secrets;

use sluicegate::config::{Config, Loaded, Overrides, Refused, load};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

/// Loads `text` from a file that only its owner may read, with the variable `SET` in the environment.
fn load_text(text: impl AsRef<[u8]>) -> Result<Loaded, Refused> {
    load_mode(text, 0o600)
}

fn load_mode(text: impl AsRef<[u8]>, mode: u32) -> Result<Loaded, Refused> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_ref()).unwrap();
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
    let env = |name: &str| (name == "SET").then(|| "0123456789abcdefghijklmnop".to_owned());
    load(Some(file.path()), &Overrides::default(), &env)
}

fn config(text: &str) -> Config {
    load_text(text).unwrap_or_else(|refused| panic!("refused: {refused}")).config
}

/// The problems of a refused text, one line each, without the file's random name.
fn refusal(text: impl AsRef<[u8]>) -> Vec<String> {
    lines(&load_text(text).expect_err("the text was accepted"))
}

fn lines(refused: &Refused) -> Vec<String> {
    let text = |problem: &sluicegate::config::Problem| {
        let mut problem = problem.clone();
        problem.file = problem.file.map(|_| "f".to_owned());
        problem.to_string()
    };
    refused.problems.iter().map(text).collect()
}

/// The warnings of an accepted text.
fn warnings(text: &str) -> Vec<String> {
    lines(&Refused { problems: load_text(text).unwrap_or_else(|refused| panic!("refused: {refused}")).warnings })
}
