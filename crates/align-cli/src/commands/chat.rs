//! `align chat`.

use std::io::{BufRead, IsTerminal, Write};

use align_core::Draws;
use align_data::rows::{Dialogue, Message, Role};
use align_models::{Event, GenerateOptions, Prompt, generate_watched};
use anyhow::{Result, bail};

use super::open::{Opened, Text, open, sampling};
use crate::args::ChatArgs;

pub(super) fn run(model: &str, args: &ChatArgs) -> Result<()> {
    let opened = open(model, &args.load)?;
    if opened.encoder.template().is_none() {
        bail!("{} has no chat template: use `align generate`", opened.model.folder.display());
    }
    let sampling = sampling(&args.sampling, &opened.encoder);
    let text = Text(&opened.encoder);
    let system = args.system.iter().map(|text| Message::new(Role::System, text.clone()));
    let mut messages: Vec<Message> = system.collect();
    let opening = messages.clone();
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        eprintln!("/new starts afresh, /quit or Ctrl-D ends");
    }
    let mut turn = 0;
    loop {
        if interactive {
            eprint!("> ");
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => continue,
            "/quit" => return Ok(()),
            "/new" => {
                messages = opening.clone();
                continue;
            }
            said => messages.push(Message::new(Role::User, said)),
        }
        let options = GenerateOptions {
            detokenize: Some(&text),
            step: turn,
            ..GenerateOptions::new(&sampling, Draws::new(args.sampling.seed))
        };
        match answer(&opened, &messages, &options) {
            Ok(answer) => messages.push(Message::new(Role::Assistant, answer)),
            Err(error) if interactive => {
                messages.pop();
                eprintln!("{error:#}; /new starts afresh");
            }
            Err(error) => return Err(error),
        }
        turn += 1;
    }
}

/// Answers the last message, writing while it is drawn.
fn answer(opened: &Opened, messages: &[Message], options: &GenerateOptions<'_>) -> Result<String> {
    let prompt = opened.encoder.encode_prompt(&Dialogue::Messages(messages.to_vec()))?;
    let mut shown = 0;
    let mut out = std::io::stdout().lock();
    let mut written = Ok(());
    let prompt = Prompt::numbered([prompt]);
    let generation = generate_watched(&*opened.model.lm, &prompt, options, &mut |event| {
        if let Event::Token { response, .. } = event {
            let so_far = opened.encoder.decode(response).unwrap_or_default();
            // A character may span tokens; what is not whole yet decodes to the replacement character.
            let whole = so_far.trim_end_matches('\u{FFFD}');
            if whole.len() > shown && whole.is_char_boundary(shown) && written.is_ok() {
                written = write!(out, "{}", &whole[shown..]).and_then(|()| out.flush());
                shown = whole.len();
            }
        }
    });
    let generation = opened.model.explained(generation)?;
    written?;
    writeln!(out)?;
    Ok(generation.rows.into_iter().next().and_then(|row| row.text).unwrap_or_default())
}
