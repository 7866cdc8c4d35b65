"""A status as Prometheus text [exposition format 0.0.4]; no mount and no bundle is known here."""

from collections.abc import Mapping, Sequence
from typing import Any

from bundlefs import __version__
from bundlefs.base.escapes import escaped

_METRICS = (
    ("image_size", "image_bytes", "gauge", "Size of the image."),
    ("image_bytes_read", "image_read_bytes_total", "counter", "Bytes read of the image."),
    ("tar_size", "tar_bytes", "gauge", "Size of the tar stream."),
    ("tar_bytes_done", "tar_done_bytes", "gauge", "How far the index pass is in the tar stream."),
    ("parts_made", "parts_made", "gauge", "Parts whose digest is known."),
    ("sealed_bytes", "sealed_bytes", "gauge", "Bytes of the bundle that are made or there."),
    ("blocks_compressed", "blocks_compressed_total", "counter", "Blocks that were compressed."),
    (
        "blocks_made_again",
        "blocks_made_again_total",
        "counter",
        "Those of them that had been compressed before.",
    ),
    (
        "page_cache_bytes",
        "page_cache_given_bytes_total",
        "counter",
        "Bytes of parts that the kernel was given to keep in its page cache.",
    ),
    ("pass_bytes_done", "pass_done_bytes", "gauge", "Bytes gone through by a pass."),
    ("pass_bytes_total", "pass_bytes", "gauge", "Bytes of what is gone through."),
    ("seconds", "uptime_seconds", "gauge", "Seconds since the mount."),
    ("pass_seconds", "pass_seconds", "gauge", "Seconds that the index pass has taken."),
    (
        "storage_silent_seconds",
        "storage_silent_seconds",
        "gauge",
        "Seconds for which the image's storage has not answered a read.",
    ),
)
"""Field of the status, name after `bundlefs_`, type, help."""

_IN_LABELS = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

_PHASES = ("unopened", "opening", "unpacking", "idle", "indexing", "complete", "failed")


def text(status: Mapping[str, Any]) -> str:
    """Return the metrics of a mount, for each image; what a status does not hold is left out."""
    images: Sequence[Mapping[str, Any]] = status.get("images", (status,))
    lines = _metric("build_info", "gauge", "The version.", {f'version="{__version__}"': 1})
    phases = {
        f'image="{_label(one["image"])}",phase="{phase}"': int(one["phase"] == phase)
        for one in images
        for phase in _PHASES
    }
    lines += _metric("phase", "gauge", "1 for the phase that the image is in.", phases)
    for field, name, kind, about in _METRICS:
        samples = {f'image="{_label(one["image"])}"': one[field] for one in images if field in one}
        if samples:
            lines += _metric(name, kind, about, samples)
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, about: str, samples: Mapping[str, object]) -> list[str]:
    head = [f"# HELP bundlefs_{name} {about}", f"# TYPE bundlefs_{name} {kind}"]
    return head + [f"bundlefs_{name}{{{labels}}} {value}" for labels, value in samples.items()]


def _label(value: str) -> str:
    # No two names that are not UTF-8 may become the same label.
    return escaped(value, keep="\n").translate(_IN_LABELS)
