"""What `bundlefs inspect` found, for people: a table of 80 columns, or plain lines for a pipe.

It is made of the same document that programs get, so that both tell the same. All that comes from
an image or a manifest is escaped here, before it is measured: what is printed is as wide as it
looks, and has no control character in it.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

from bundlefs.base.escapes import escaped, quoted
from bundlefs.cli.commands.status import describe
from bundlefs.cli.common import human

Row = tuple[str, str]

_LABEL = 14
_MOST_LISTED = 20


def described(document: dict[str, Any], columns: int | None) -> Iterator[str]:
    """Yield the lines; `columns` is None where they are not to be wrapped."""
    for label, text in _rows(document, as_table=columns is not None):
        if columns is None:
            yield escaped(f"{label}: {text}" if label else text)
        elif label:
            lines = _wrapped(escaped(text), columns - _LABEL)
            for count, line in enumerate(lines):
                yield f"{label if not count else '':{_LABEL}}{line}"
        else:
            yield clip(escaped(text), columns)


def _rows(document: dict[str, Any], *, as_table: bool) -> Iterator[Row]:
    yield document["what"], document["path"]
    if document["what"] == "disk":
        yield from _disk(document["disk"], as_table=as_table)
    elif document["what"] == "bundle":
        for one in document["bundle"]["manifests"]:
            yield from _manifest(one)
    else:
        yield from _mount(document["mount"])
    for one in document["remarks"]:
        yield one["level"], f"{one['text']}. Remedy: {one['remedy']}"
    for text in document["unknown"]:
        yield "unknown", text


def _known(value: int | None) -> str:
    return "unknown" if value is None else f"{human(value)} ({value} bytes)"


def _disk(disk: dict[str, Any], *, as_table: bool) -> Iterator[Row]:
    of_file = "" if disk["form"] == "raw" else f", in a file of {human(disk['file_size'])}"
    yield "form", f"{disk['form']}{of_file}"
    yield "size", _known(disk["size"])
    yield "data", _known(disk["data"])
    yield "holes", _known(disk["holes"])
    yield from _partitions(disk["table"], as_table=as_table)
    if disk["content"] or not disk["table"]:
        yield "content", _content(disk["content"])
    if disk["virtualization"]:
        yield "fit for", disk["virtualization"]
    if boot := disk["boot"]:
        yield "starts by", " and ".join(_loaders(boot)) or "nothing"
    by = ", ".join(f"{one['architecture']} by {one['by']}" for one in disk["architecture_by"])
    yield "architecture", f"{disk['architecture'] or 'unknown'}{f' ({by})' if by else ''}"
    for one in disk["free_space"]:
        yield "free space", _free(one)
    for one in disk["estimates"]:
        yield f"level {one['level']}", _estimate(one)


def _loaders(boot: dict[str, bool]) -> Iterator[str]:
    if boot["code"]:
        yield "BIOS"
    if boot["efi"]:
        yield "UEFI"


def _free(one: dict[str, Any]) -> str:
    where = "" if one["partition"] is None else f" in partition {one['partition']}"
    about = "" if one["whole"] or not one["old"] else "about "
    return f"{human(one['free'])}{where}, {about}{human(one['old'])} of it with old data"


def _estimate(one: dict[str, Any]) -> str:
    between = "" if one["exact"] else f" ({human(one['least'])} to {human(one['most'])})"
    about = "" if one["exact"] else "about "
    return f"a bundle of {about}{human(one['size'])}{between}, roughly {one['seconds']:.1f} s"


def _partitions(table: dict[str, Any] | None, *, as_table: bool) -> Iterator[Row]:
    if table is None:
        yield "table", "none"
        return
    found = table["partitions"]
    if found is None:
        yield "table", f"{table['kind']}, partitions unknown"
        return
    yield "table", f"{table['kind']}, {len(found)} partition{'' if len(found) == 1 else 's'}"
    if as_table and found:
        yield "", f"  {'#':>3} {'start':>11} {'size':>11}  {'type':20} {'content':12} label"
    for one in found[:_MOST_LISTED]:
        yield from _as_columns(one) if as_table else _as_line(one)
    if len(found) > _MOST_LISTED:
        yield "", f"  and {len(found) - _MOST_LISTED} more; --json has them all"


def _as_columns(one: dict[str, Any]) -> Iterator[Row]:
    content = one["content"] or {"kind": "unknown", "label": None, "uuid": None, "size": None}
    kind = "-" if one["type_name"] == "extended" else content["kind"]
    cells = (
        f"{one['number']:>3}{'*' if one['bootable'] else ' '}{human(one['start']):>11}",
        f"{human(one['size']):>11} ",
        pad(escaped(one["type_name"] or one["type"]), 20),
        pad(escaped(kind), 12),
        clip(escaped(content["label"] or ""), 16),
    )
    yield "", f"  {' '.join(cells)}".rstrip()
    more = [f"UUID {content['uuid']}"] if content["uuid"] else []
    more += [human(content["size"])] if content["size"] else []
    if more:
        yield "", f"  {'':28} {', '.join(more)}"


def _as_line(one: dict[str, Any]) -> Iterator[Row]:
    facts = [f"start {one['start']}", f"size {one['size']}"]
    facts.append(f"type {one['type']}" + (f" ({one['type_name']})" if one["type_name"] else ""))
    facts += ["bootable"] if one["bootable"] else []
    facts += [f"name {quoted(one['name'])}"] if one["name"] else []
    if one["type_name"] != "extended":
        facts.append(_content(one["content"]))
    yield f"partition {one['number']}", ", ".join(facts)


def _content(content: dict[str, Any] | None) -> str:
    if content is None:
        return "unknown content"
    facts = [content["kind"]]
    facts += [f"label {quoted(content['label'])}"] if content["label"] else []
    facts += [f"UUID {content['uuid']}"] if content["uuid"] else []
    facts.append(f"size {content['size']}" if content["size"] else "size unknown")
    return ", ".join(facts)


def _manifest(one: dict[str, Any]) -> Iterator[Row]:
    yield "manifest", one["path"]
    yield "version", one["version"]
    yield "made by", " ".join(one["bundler"]) or "unknown"
    for label, field in (
        ("name", "name"),
        ("account", "account"),
        ("architecture", "architecture"),
        ("type", "type"),
        ("kernel", "kernel"),
        ("ramdisk", "ramdisk"),
        ("kernel name", "kernel_name"),
    ):
        if one[field]:
            yield label, one[field]
    for virtual, device in one["block_device_mapping"][:_MOST_LISTED]:
        yield "mapping", f"{virtual}={device}"
    for label, field in (("product codes", "product_codes"), ("ancestors", "ancestors")):
        if one[field]:
            yield label, ", ".join(one[field][:_MOST_LISTED])
    yield "image", _known(one["size"])
    yield "tar digest", one["digest"] or "unknown: the manifest has none"
    yield "parts", _parts(one)
    tar = one["tar"]
    yield "tar form", f"{tar['kind']}, {human(tar['data'])} of data" if tar else "unknown"
    yield "signature", _SIGNATURES[one["signature"]]
    yield "opens with", " or ".join(_opens(one["opens"])) or "nobody's key: it has none"


_SIGNATURES = {
    "holds": "made by your key",
    "bad": "not made by your key, or the manifest was changed since",
    "missing": "none",
    "unchecked": "there is one; unchecked, since no key or certificate was given",
}


def _parts(one: dict[str, Any]) -> str:
    parts = one["parts"]
    there = "all there" if parts["present"] == parts["count"] else f"{parts['present']} there"
    told = "" if one["bundled_size"] is None else f", {one['bundled_size']} by the manifest"
    return f"{parts['count']}, {there}, {parts['size']} bytes together{told}"


def _opens(opens: dict[str, Any]) -> Iterator[str]:
    if opens["user_key_bits"]:
        yield f"the user's private key ({opens['user_key_bits']} bits)"
    if opens["ec2_key_bits"]:
        fitting = ", ".join(opens["ec2_keys_that_fit"]) or "none that bundlefs knows"
        by_name = opens["region_by_file_name"]
        hint = f"; by its file name for {by_name}" if by_name else ""
        yield f"EC2's ({opens['ec2_key_bits']} bits; it may be: {fitting}{hint})"


def _mount(mount: dict[str, Any]) -> Iterator[Row]:
    kinds = {
        "bundle": "an image, shown as a bundle",
        "images": "a folder of images, each shown as a bundle",
        "opened": "a bundle, opened as a disk",
    }
    yield "shows", kinds[mount["kind"]]
    for line in describe(mount["status"]).splitlines():
        label, _, text = line.strip().partition(" ")
        yield label.rstrip(":"), text.strip()


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def clip(text: str, columns: int) -> str:
    """Return as much of a text as fits."""
    if width(text) <= columns:
        return text
    while width(text) >= columns:
        text = text[:-1]
    return f"{text}…"


def pad(text: str, columns: int) -> str:
    """Return a text that takes just so many columns."""
    text = clip(text, columns)
    return text + " " * (columns - width(text))


def _wrapped(text: str, columns: int) -> list[str]:
    """Return a text in lines; a word that is too long is broken."""
    lines = [""]
    for word in text.split(" "):
        room = columns - width(lines[-1]) - 1 if lines[-1] else columns
        if width(word) <= room:
            lines[-1] += f" {word}" if lines[-1] else word
            continue
        if lines[-1]:
            lines.append("")
        for char in word:
            if width(lines[-1] + char) > columns:
                lines.append("")
            lines[-1] += char
    return lines
