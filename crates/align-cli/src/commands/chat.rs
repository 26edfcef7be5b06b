//! `align chat`.

use std::io::{BufRead, IsTerminal, Write};

use align_core::Draws;
use align_data::rows::{Dialogue, Message, Role};
use align_models::{Event, GenerateOptions, Prompt, generate_watched};
use anyhow::{Result, bail};

use super::open::{Text, open, sampling};
use crate::args::ChatArgs;

pub(super) fn run(args: &ChatArgs) -> Result<()> {
    let device = args.device.device.open()?;
    let opened = open(&args.model, &device)?;
    if opened.encoder.template().is_none() {
        bail!("{} has no chat template: use `align generate`", opened.folder.display());
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
        let prompt = opened.encoder.encode_prompt(&Dialogue::Messages(messages.clone()))?;
        let options = GenerateOptions {
            detokenize: Some(&text),
            step: turn,
            ..GenerateOptions::new(&sampling, Draws::new(args.sampling.seed))
        };
        let mut shown = 0;
        let mut out = std::io::stdout().lock();
        let generation =
            generate_watched(&opened.model, &Prompt::numbered([prompt]), &options, &mut |event| {
                if let Event::Token { response, .. } = event {
                    let so_far = opened.encoder.decode(response).unwrap_or_default();
                    // A character may span tokens; what is not whole yet decodes to the replacement character.
                    let whole = so_far.trim_end_matches('\u{FFFD}');
                    if whole.len() > shown && whole.is_char_boundary(shown) {
                        let _ = write!(out, "{}", &whole[shown..]);
                        let _ = out.flush();
                        shown = whole.len();
                    }
                }
            })?;
        writeln!(out)?;
        let answer = generation.rows[0].text.clone().unwrap_or_default();
        messages.push(Message::new(Role::Assistant, answer));
        turn += 1;
    }
}
