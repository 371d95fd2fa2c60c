"""Writes test/fixtures/jinja/rendered.json: what jinja2 makes of the templates beside it, under transformers' settings.

  apt-get install python3-jinja2 && python3 test/support/jinja_cases.py

Written with jinja2 3.1.2 on Python 3.11 (Debian 12). A template that jinja2 refuses, or whose text has an address in it, has no text.
"""
import datetime
import json
import pathlib
import re

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The tag of transformers: its body, with where it stands in the text."""

    tags = {"generation"}

    def __init__(self, environment):
        super().__init__(environment)
        environment.extend(written=[], spans=[])

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller):
        text = caller()
        begin = len("".join(self.environment.written))
        self.environment.spans.append([begin, begin + len(text)])
        return text


def raise_exception(message):
    raise jinja2.TemplateError(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


NOW = datetime.datetime(2024, 2, 29, 15, 4, 5, 678000)

environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
)
environment.filters["tojson"] = to_json
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = NOW.strftime


def rendered(template, variables):
    environment.written.clear()
    environment.spans.clear()
    try:
        compiled = environment.from_string(template)
        for part in compiled.root_render_func(compiled.new_context(variables)):
            environment.written.append(part)
        text = "".join(environment.written)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if re.search(r" at 0x[0-9a-f]+>", text):
        return {"error": "an address"}
    return {"text": text, **({"spans": list(environment.spans)} if environment.spans else {})}


folder = pathlib.Path(__file__).parent.parent / "fixtures" / "jinja"
given = json.loads((folder / "templates.json").read_text())
# Values that a rendering changes, as list.pop() does, are not seen by the next.
cases = [
    {"template": template, **rendered(template, json.loads(json.dumps(given["variables"])))}
    for template in given["templates"]
]
(folder / "rendered.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
