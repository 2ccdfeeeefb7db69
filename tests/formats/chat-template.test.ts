import { describe, expect, it } from "vitest";
import { ChatTemplate } from "../../src/formats/chat-template.ts";
import { templateLimits } from "../../src/formats/hf-limits.ts";

const render = (source: string, variables: Record<string, unknown> = {}): string =>
  new ChatTemplate(source).render(variables);

const chatml = `{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
`;

const llama3 = `{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{%- if tools is not none and tools is defined %}
    {{- "Tools:\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
    {%- endfor %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nDate: " + strftime_now("%d %b %Y") + "\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'user' or message.role == 'assistant') %}
        {{- raise_exception("only users and assistants speak") }}
    {%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}`;

describe("ChatTemplate", () => {
  it("renders conversations", () => {
    const messages = [
      { role: "user", content: "hi" },
      { role: "assistant", content: "hello" },
    ];
    expect(render(chatml, { messages })).toBe(
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n",
    );
    expect(render(chatml, { messages: [], add_generation_prompt: true })).toBe("<|im_start|>assistant\n");
  });

  it("renders what templates of today are made of", () => {
    const text = new ChatTemplate(llama3).render(
      {
        bos_token: "<s>",
        messages: [
          { role: "system", content: " be brief " },
          { role: "user", content: " hi\n" },
        ],
        tools: [{ name: "f" }],
      },
      new Date(2026, 6, 4),
    );
    expect(text).toBe(
      '<s>Tools:\n{\n    "name": "f"\n}<|start_header_id|>system<|end_header_id|>\n\nDate: 04 Jul 2026\nbe brief<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>',
    );
  });

  it.each([
    ["{{ x | replace('a', 'bc') }}", { x: "aXa" }, "bcXbc"],
    ["{{ x.replace('a', 'bc') }}", { x: "aXa" }, "bcXbc"],
    ["{{ x.split(',')[1] }}", { x: "a,b" }, "b"],
    ["{{ x | join('-') }}", { x: ["a", "b"] }, "a-b"],
    ["{% filter indent(width=2) %}a\nb{% endfilter %}", {}, "a\n  b"],
    ["{{ x | map(attribute='y') | join }}", { x: [{ y: "a" }, { y: "b" }] }, "ab"],
    ["{{ x | selectattr('y', 'equalto', 'b') | list | length }}", { x: [{ y: "a" }, { y: "b" }] }, "1"],
    ["{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", {}, "10"],
    ["{% macro f(a, b='!') %}{{ a }}{{ b }}{% endmacro %}{{ f('x') }}{{ f('y', b='?') }}", {}, "x!y?"],
    ["{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}x{% endcall %}", {}, "<x>"],
    ["{% for i in range(9, 0, -3) %}{{ i }}{% endfor %}", {}, "963"],
    ["{% for k, v in x.items() %}{{ k }}={{ v }};{% endfor %}", { x: { a: 1, b: "c" } }, "a=1;b=c;"],
    ["{{ x | tojson(separators=(',', ':')) }}", { x: { a: [1, "é"] } }, '{"a":[1,"é"]}'],
    ["{{ x is defined }}{{ y is defined }}{{ 'b' in x }}", { x: "abc" }, "truefalsetrue"],
    ["{% generation %}{{ x }}{% endgeneration %}", { x: "a" }, "a"],
  ] as const)("renders %s", (source, variables, expected) => {
    expect(render(source, variables)).toBe(expected);
  });

  it("lets templates refuse conversations in their own words", () => {
    expect(() =>
      render(llama3, {
        messages: [
          { role: "user", content: "a" },
          { role: "judge", content: "b" },
        ],
      }),
    ).toThrow(/^the chat template refuses the conversation: only users and assistants speak$/);
  });

  it("says what is wrong with templates that do not parse or fail", () => {
    for (const source of ["{{ x", "{% for %}", "{% if a %}", "{{ ) }}"]) {
      expect(() => new ChatTemplate(source)).toThrow(/^the chat template does not parse: /);
    }
    expect(() => render("{{ missing.field.deeper() }}")).toThrow(/^the chat template failed: /);
    expect(() => render("{{ x | nosuchfilter }}", { x: "a" })).toThrow(
      /^the chat template failed: Unknown StringValue filter: nosuchfilter/,
    );
  });
});

describe("hostile templates", () => {
  const big = "{% set s = 'aaaaaaaaaaaaaaaa' %}{% for i in range(18) %}{% set s = s ~ s %}{% endfor %}";
  const doubling = (body: string): string =>
    `{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(16) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}${body}`;

  it.each([
    ["a range of a billion", "{% for i in range(1000000000) %}x{% endfor %}", /a range of 1000000000, over the limit/],
    ["a backward range of a billion", "{{ range(1000000000, 0, -1) }}", /a range of 1000000000, over the limit/],
    ["a range without steps", "{{ range(0, 10, 0) }}", /a range of Infinity, over the limit/],
    [
      "loops in loops",
      "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
      /takes more than 1000000 steps/,
    ],
    ["loops of nothing", "{% for i in range(99999) %}{% endfor %}".repeat(9), /takes more than 1000000 steps/],
    [
      "ten megabytes of output",
      `{% for i in range(50000) %}${"x".repeat(200)}{% endfor %}`,
      /made 10000000 characters, over the limit of 4194304/,
    ],
    [
      "doubling text",
      "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      /moves more than/,
    ],
    [
      "doubling lists",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      /moves more than/,
    ],
    [
      "lists of the same list, printed",
      "{% set ns = namespace(s=['x']) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
      /moves more than/,
    ],
    [
      "deep lists, indented",
      "{% set ns = namespace(s=['x']) %}{% for i in range(900) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s | tojson(indent=5000) }}",
      /moves more than/,
    ],
    ["replacing every character by a long text", doubling("{{ ns.s | replace('a', ns.s) }}"), /moves more than/],
    ["the same as a method", doubling("{{ ns.s.replace('a', ns.s) }}"), /moves more than/],
    ["the same as a method kept", doubling("{% set f = ns.s.replace %}{{ f('a', ns.s) }}"), /moves more than/],
    ["joining with a long text", doubling("{{ ns.s | join(ns.s) }}"), /moves more than/],
    [
      "indenting by a billion",
      doubling("{{ ns.s | replace('a', '\\n') | indent(width=1000000000) }}"),
      /moves more than/,
    ],
    ["indenting a whole block", "{% filter indent(1000000000) %}a\nb{% endfilter %}", /moves more than/],
    [
      "splitting into a million pieces",
      doubling("{% for i in range(100) %}{% set x = ns.s.split('a') %}{% endfor %}"),
      /moves more than/,
    ],
    [
      "looking into long text all day",
      doubling("{% for i in range(99999) %}{{ 'b' in ns.s }}{% endfor %}"),
      /moves more than/,
    ],
    [
      "trimming long text all day",
      doubling("{% for i in range(99999) %}{% set x = ns.s.strip() %}{% endfor %}"),
      /moves more than/,
    ],
    ["long paths into namespaces", "{% set ns = namespace() %}{% set ns.a = ns %}", /a namespace cannot be stored/],
    ["namespaces in lists", "{% set ns = namespace() %}{% set x = [ns] %}", /a namespace cannot be stored/],
    ["endless recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /nests deeper than 400 steps/],
    [
      "a tree of recursion",
      "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
      /takes more than 1000000 steps|moves more than/,
    ],
    [
      "macros defined all day",
      `{% for i in range(99999) %}{% macro f() %}${"{{ a }}".repeat(2000)}{% endmacro %}{% endfor %}`,
      /moves more than/,
    ],
  ])("%s: ends with an error that says so", (_, source, message) => {
    expect(() => render(source)).toThrow(message);
  });

  it("keeps text of any reasonable size going", () => {
    const messages = Array.from({ length: 400 }, (_, i) => ({
      role: i % 2 ? "assistant" : "user",
      content: `word ${i} `.repeat(200),
    }));
    expect(render(chatml, { messages }).length).toBeGreaterThan(600_000);
    expect(render(`${big}{{ s | length }}`)).toBe("16");
  });

  it.each([
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.constructor.constructor('return process')() }}",
    "{{ {}.constructor.prototype.x() }}",
    "{{ [].__proto__.constructor() }}",
    "{{ messages.constructor('return 1')() }}",
    "{{ range.constructor('return 1')() }}",
    "{{ namespace.__init__.__globals__.os.popen('id').read() }}",
    "{{ cycler.__init__.__globals__ }}{{ lipsum.__globals__['os'].popen('id') }}",
    "{{ self.__init__.__globals__.__builtins__.open('/etc/passwd').read() }}",
  ])("%s reaches nothing", (source) => {
    expect(() => render(source, { messages: [] })).toThrow(
      /^the chat template failed: Cannot (call something that is not a function|access property)/,
    );
  });

  it("does not touch prototypes", () => {
    render("{% set ns = namespace() %}{% set ns.__proto__ = 'x' %}{% set ns.constructor = 'y' %}{{ ns.__proto__ }}");
    expect(({} as Record<string, unknown>)["x"]).toBeUndefined();
    expect(Object.prototype.constructor).toBe(Object);
    const variables = JSON.parse('{"__proto__": {"polluted": 1}}') as Record<string, unknown>;
    expect(render("{{ __proto__.polluted }}{{ polluted is defined }}", variables)).toBe("1false");
  });

  it("is not read at all when it is too long, too deep or too empty", () => {
    expect(() => new ChatTemplate("x".repeat(templateLimits.sourceLength + 1))).toThrow(
      /has 262145 characters, over the limit of 262144/,
    );
    expect(() => new ChatTemplate(" ".repeat(100_000))).toThrow(/more than 2048 spaces in a row/);
    expect(() => new ChatTemplate(`{{ ${"(".repeat(100_000)} }}`)).toThrow(/nests too deeply/);
    expect(() => new ChatTemplate(`{{ ${"[".repeat(50_000)}${"]".repeat(50_000)} }}`)).toThrow(/nests too deeply/);
  });
});
