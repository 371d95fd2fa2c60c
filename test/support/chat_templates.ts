// Chat templates in the styles of the model families, each with what that style is tested for.
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import { SpecialTokens } from '../../lib/text/targets/special.ts';

/** Tool calls as ChatML models write them. */
const CALLS =
  '{% for c in m.tool_calls or [] %}\n<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}';

const ALTERNATE =
  "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}";

export const TEMPLATES = {
  /** Qwen2.5: a system text of its own where there is none, tools, results of tools in a user's turn. */
  chatml: `{% if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% elif messages[0].role != 'system' %}<|im_start|>system
be kind<|im_end|>
{% endif %}{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user
<tool_response>{{ m.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}${CALLS}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`,
  /** Llama 2: nothing is added for generation; the system text is in the user's first turn. */
  llama2: `{% if messages[0].role == 'system' %}{% set system = '<<SYS>>' + messages[0].content + '<</SYS>>' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}${ALTERNATE}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}`,
  /** Llama 3: contents are trimmed. */
  llama3:
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
  /** Early Llama 3: the header of an answer stands at the end, asked for or not. */
  alwaysHeader:
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
  /** Old ChatML: the header of an answer is not written for generation, which has to write it. */
  neverHeader: "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}",
  /** Mistral: the system text goes to the last user's turn of a prompt. */
  mistral: `{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}{{ bos_token }}${ALTERNATE}{% if m.role == 'user' %}{% if loop.last and system is defined %}{{ '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}{% else %}{{ '[INST] ' + m.content + '[/INST]' }}{% endif %}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}`,
  /** Zephyr and TinyLlama: the header of an answer is written within the loop. */
  zephyr:
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token }}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}\n{% endfor %}",
  /** Gemma: other names of roles; no system text. */
  gemma:
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
  /** Phi 3: the end of text stands after the last turn only. */
  phi3: "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
  /** Qwen3: thoughts of former turns are dropped, those of the last are there even if there are none. */
  qwen3: `{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}{% set thoughts = m.reasoning_content or '' %}{% if '</think>' in content %}{% set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}<|im_start|>assistant
{% if loop.index0 > ns.last and (loop.last or thoughts) %}<think>
{{ thoughts }}
</think>

{% endif %}{{ content }}${CALLS}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>user
<tool_response>{{ m.content }}</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}`,
  /** R1 distills: thoughts are dropped everywhere, and prompts open them. */
  r1: "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + m.content }}{% else %}{{ '<|assistant|>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}",
  /** A turn ends where another one follows. */
  endsBetween:
    '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if not loop.last or add_generation_prompt %}<|end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}',
  /** An answer ends where the header of the next question begins. */
  headersOnly:
    '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}',
  /** No token ends a turn. */
  endless:
    '{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}',
  /** Marked by itself. */
  tags: "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% else %}<|user|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}",
  /** Reads parts of contents, not texts. */
  parts:
    "{% for m in messages %}<|{{ m.role }}|>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
};

export type TemplateName = keyof typeof TEMPLATES;

const SPECIAL = (
  '<s> </s> <|im_start|> <|im_end|> <|start_header_id|> <|end_header_id|> <|eot_id|> <start_of_turn> <end_of_turn> ' +
  '<|user|> <|assistant|> <|system|> <|end|>'
).split(' ');

export const special = new SpecialTokens(
  SPECIAL.map((content, id) => ({ id, content, special: true })),
  SPECIAL.indexOf('</s>'),
);

export const templateOf = (name: TemplateName) =>
  new ChatTemplate(TEMPLATES[name], { bos_token: '<s>', eos_token: '</s>' });
