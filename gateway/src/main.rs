//! The binary `groupcast`: arguments, environment, exit codes.

use std::process::ExitCode;

use clap::Parser;
use groupcast::cli::{Cli, CliError, output};

fn main() -> ExitCode {
    // Prints help, version and errors of usage itself, and exits with 0 or 2.
    let cli = Cli::parse();
    // Settings are text; a variable that is none cannot be one.
    let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    match cli.command.run(environment.collect()) {
        Ok(()) | Err(CliError::OutputClosed) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
