//! Templates that come with the crate.

/// Name and source.
pub(super) const TEMPLATES: [(&str, &str); 3] = [("chatml", CHATML), ("zephyr", ZEPHYR), ("hh", HH)];

/// `<|im_start|>role … <|im_end|>`.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] \
                      + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ \
                      '<|im_start|>assistant\\n' }}{% endif %}";

/// `<|role|> … eos`.
const ZEPHYR: &str = "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + \
                      eos_token + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// HH's own markers, for models that know no special tokens; the assistant's turns end with the stop token.
const HH: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '\\n\\nHuman: ' + \
                  message['content'] }}{% elif message['role'] == 'assistant' %}{{ '\\n\\nAssistant: ' + \
                  message['content'] + (eos_token or '') }}{% else %}{{ '\\n\\n' + message['content'] }}{% endif \
                  %}{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}";
