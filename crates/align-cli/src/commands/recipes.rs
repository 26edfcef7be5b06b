//! `align recipes`.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::args::RecipesCommand;
use crate::recipe::builtin::BUILTIN;
use crate::recipe::source::nearest_of;

pub(crate) fn run(command: &RecipesCommand) -> Result<()> {
    match command {
        RecipesCommand::Ls => {
            let width = BUILTIN.iter().map(|builtin| builtin.name.len()).max().unwrap_or(0);
            for builtin in BUILTIN {
                println!("{:width$}  {}", builtin.name, builtin.summary());
            }
        }
        RecipesCommand::Cp { name, to } => {
            let Some(builtin) = BUILTIN.iter().find(|builtin| builtin.name == name) else {
                let known: Vec<String> = BUILTIN.iter().map(|builtin| builtin.name.to_owned()).collect();
                let hint =
                    nearest_of(name, &known).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                bail!("no built-in recipe is called `{name}`{hint}; `align recipes ls` lists them");
            };
            let to = to.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
            if to.exists() {
                bail!("{} is there already and is not overwritten", to.display());
            }
            align_core::persist::replace_file(&to, |file| {
                std::io::Write::write_all(file, builtin.text.as_bytes())
            })?;
            println!("{}", to.display());
        }
    }
    Ok(())
}
