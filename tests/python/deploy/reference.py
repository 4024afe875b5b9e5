"""Writes docs/configuration.md: keys, types and sentences from gateway/src/config, defaults from the program itself.

    GROUPCAST_BIN=target/release/groupcast tests/.venv-deploy/bin/python tests/python/deploy/reference.py
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "gateway/src/config"
PAGE = ROOT / "docs/configuration.md"

HEAD = """\
# Configuration

Made from the types in `gateway/src/config` by `tests/python/deploy/reference.py`, and checked by `./tests/run --only deploy`; not
written by hand. [deploy/groupcast.toml](../deploy/groupcast.toml) is an example with comments, `groupcast check` explains what is wrong with a
file, and `groupcast check --print` shows all that is in force.

Settings come from `groupcast.toml`, over it from the environment (`GROUPCAST_SECTION__KEY`, for keys with one value), over that from flags. Durations
are numbers with `ms`, `s`, `m`, `h` or `d`; sizes numbers of bytes, or with `KiB`, `MiB`, `GiB`; rates as in `"10/s"`. A key that is not known is an error.
"""

# One entry of each list, with no more than it needs, to learn what the rest is.
LEAST = """
[[group]]
name = "g"
history = {}
[source.NAME]
kind = "sqlite"
path = "x.db"
[[query]]
id = 1
name = "q"
source = "NAME"
sql = "select 1"
[[consumer]]
name = "c"
group = "g"
type = "t"
run = "query"
[[schedule]]
name = "s"
cron = "0 3 * * *"
group = "g"
message = { type = "t" }
[auth]
api_keys_env = "KEYS"
[hooks]
url = "https://backend.example.org/hook"
"""

PLAIN = {
    "SocketAddr": "address",
    "PathBuf": "path",
    "String": "text",
    "bool": "true or false",
    "usize": "number",
    "u16": "number",
    "u32": "number",
    "u64": "number",
    "f64": "number",
    "Size": "size",
    "Time": "duration",
    "Rate": "rate",
    "Network": "network",
    "Budget": "share or size",
    "Hidden": "secret text",
    "Secret": "secret text",
    "toml::Value": "any value",
    "toml::Table": "table",
}


@dataclass
class Field:
    name: str
    type: str
    doc: str
    has_default: bool


@dataclass
class Kind:
    """A struct or an enum of the configuration."""

    doc: str
    fields: list[Field] = field(default_factory=list)
    values: list[str] = field(default_factory=list)


def kinds() -> dict[str, Kind]:
    found = {}
    for path in [SOURCES.with_suffix(".rs"), *sorted(SOURCES.rglob("*.rs"))]:
        text = path.read_text()
        for above, what, name, body in items(text):
            if "Deserialize" in above or name == "Config":
                found[name] = struct(above, body) if what == "struct" else enum(above, body)
    return found


def items(text: str):
    """What stands above each public struct and enum, which of the two it is, its name, and what it has."""
    above: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        if match := re.fullmatch(r"pub (struct|enum) (\w+) \{", line):
            body = []
            for inner in lines:
                if inner == "}":
                    break
                body.append(inner)
            yield "\n".join(above), match.group(1), match.group(2), "\n".join(body)
            above = []
        elif line.startswith(("///", "#[")):
            above.append(line)
        else:
            above = []


def struct(above: str, body: str) -> Kind:
    kind = Kind(sentence(above))
    whole = bool(re.search(r"#\[serde\(.*\bdefault\b", above))
    for doc, attributes, name, type_ in members(body, r"    pub (\w+): (.+),"):
        if re.search(r"serde\(.*\bskip\b[,)]", attributes):
            continue
        renamed = re.search(r'rename = "([^"]+)"', attributes)
        optional = type_.startswith(("Option<", "Vec<", "BTreeMap<"))
        has_default = whole or "default" in attributes or optional
        kind.fields.append(Field(renamed.group(1) if renamed else name, type_, doc, has_default))
    return kind


def enum(above: str, body: str) -> Kind:
    kind = Kind(sentence(above))
    rule = re.search(r'rename_all = "([^"]+)"', above)
    dash = "-" if rule and rule.group(1) == "kebab-case" else "_"
    for doc, attributes, name, _ in members(body, r"    (\w+)()(?:\(.*\))?,"):
        renamed = re.search(r'rename = "([^"]+)"', attributes)
        kind.values.append(renamed.group(1) if renamed else re.sub(r"(?<!^)(?=[A-Z])", dash, name).lower())
    return kind


def members(body: str, line: str):
    doc, attributes = [], []
    for text in body.split("\n"):
        if text.strip().startswith("///"):
            doc.append(text)
        elif text.strip().startswith("#["):
            attributes.append(text)
        elif match := re.fullmatch(line, text):
            yield sentence("\n".join(doc)), "\n".join(attributes), match.group(1), match.group(2)
            doc, attributes = [], []


def sentence(lines: str) -> str:
    """The text of `///` lines."""
    words = [line.strip().removeprefix("///").strip() for line in lines.split("\n") if line.strip().startswith("///")]
    return " ".join(word for word in words if word)


def defaults(binary: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "groupcast.toml").write_text(LEAST)
        make = [sys.executable, "-c", "import sqlite3; sqlite3.connect('x.db').execute('create table t (a)')"]
        subprocess.run(make, cwd=folder, check=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith("GROUPCAST_")} | {"KEYS": "k" * 32}
        command = [binary, "check", "--config", "groupcast.toml", "--print"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tomllib.loads(done.stdout)


def render(binary: str) -> str:
    known, printed = kinds(), defaults(binary)
    page = [HEAD]
    for section in known["Config"].fields:
        of_list, inner = re.match(r"Vec<", section.type), re.search(r"(\w+)>*$", section.type).group(1)
        shown = printed.get(section.name, {})
        if of_list:
            title, values = f"[[{section.name}]]", shown[0] if shown else {}
        elif section.type.startswith("BTreeMap<"):
            title, values = f"[{section.name}.NAME]", shown.get("NAME", {})
        else:
            title, values = f"[{section.name}]", shown
        said = about(known[inner].doc).removeprefix(f"`{title}`.").strip()
        page.append(f"## `{title}`\n" + (f"\n{said}\n" if said else ""))
        page.append("| key | is | default | |\n|---|---|---|---|")
        page.extend(rows(known, known[inner], values, ""))
        page.append("")
    return "\n".join(page)


def rows(known: dict, kind: Kind, values: dict, prefix: str):
    for entry in kind.fields:
        name, (type_, inner) = prefix + entry.name, written(known, entry.type)
        value = values.get(entry.name) if isinstance(values, dict) else None
        # What was said to be allowed to leave out the rest is no default.
        value = None if value == "KEYS" else value
        default = "**required**" if not entry.has_default else shown(value)
        yield f"| `{name}` | {type_} | {default} | {about(entry.doc)} |"
        if inner and known[inner].fields:
            first = value[0] if isinstance(value, list) and value else value
            below = f"{name}[]." if entry.type.startswith("Vec<") else f"{name}."
            below = f"{name}.NAME." if entry.type.startswith("BTreeMap<") else below
            yield from rows(known, known[inner], first or {}, below)


def written(known: dict, type_: str) -> tuple[str, str | None]:
    """How a type is said, and which of our own kinds it is."""
    for wrapper, words in [(r"Option<(.+)>", "{}"), (r"Vec<(.+)>", "list of {}"), (r"BTreeMap<String, (.+)>", "table of {}")]:
        if match := re.fullmatch(wrapper, type_):
            inner, kind = written(known, match.group(1))
            return words.format(inner), kind
    if type_ in PLAIN:
        return PLAIN[type_], None
    kind = known[type_]
    if kind.values:
        return " · ".join(f"`{value}`" for value in kind.values), type_
    return "table", type_


def shown(value) -> str:
    if value is None or value == {} or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int):
        return f"{value:,}"
    return f"`{value}`" if value != "" else ""


def about(doc: str) -> str:
    """A sentence for a cell of a table, without a default that has a column of its own."""
    doc = re.sub(r"^`\[+[\w.]+\]+`( and `\[+\w+\]+`)?( \w+`)?: ", "", doc)
    doc = re.sub(r"\s*\bDefault (?:`[^`]*`|[\w,]+(?: \w+)?)\.(?= |$)", "", doc)
    return (doc[:1].upper() + doc[1:]).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render(os.environ["GROUPCAST_BIN"]))
