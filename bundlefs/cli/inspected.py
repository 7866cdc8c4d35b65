"""What `bundlefs inspect` found, as JSON whose fields stay as they are [contrib/inspect.md].

A field that is not known is null, and `unknown` says why. New fields may come; those that are
there keep their names and their meaning, or `schema` changes.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bundlefs.image.inspection.disk import Disk, Place
from bundlefs.image.inspection.ec2 import Remark, remarks, virtualization
from bundlefs.image.look.partitions import Table
from bundlefs.image.look.superblocks import System
from bundlefs.keys.regions import KNOWN_REGIONS, OWN_MODULUS, STANDARD_MODULUS
from bundlefs.unbundling.facts import Bundle
from bundlefs.unbundling.unlock import Signature

SCHEMA = "bundlefs-inspect-1"
_ENDING = ".manifest.xml"

_TYPES = {
    "5": "extended",
    "f": "extended",
    "85": "extended",
    "7": "NTFS or exFAT",
    "b": "FAT",
    "c": "FAT",
    "e": "FAT",
    "82": "swap",
    "83": "Linux",
    "8e": "LVM",
    "ef": "EFI system",
    "fd": "RAID",
    "0FC63DAF-8483-4772-8E79-3D69D8477DE4": "Linux",
    "C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "EFI system",
    "21686148-6449-6E6F-744E-656564454649": "BIOS boot",
    "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F": "swap",
    "E6D6D379-F507-44C2-A23C-238F2A3DF928": "LVM",
    "A19D880F-05FC-4D3B-A006-743F0F84911E": "RAID",
    "933AC7E1-2EB4-4F13-B844-0E14E2AEF915": "Linux home",
    "BC13C2FF-59E6-4262-A352-B275FD6F7172": "Linux boot",
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709": "Linux root (x86-64)",
    "44479540-F297-41B2-9AF7-D131D5F0458A": "Linux root (x86)",
    "B921B045-1DF0-41C3-AF44-4C6F280D3FAE": "Linux root (ARM-64)",
    "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7": "Microsoft data",
    "E3C9E316-0B5C-4DB8-817D-F92DF00215AE": "Microsoft reserved",
    "9E1A2D38-C612-4316-AA26-8B49521E5A8B": "PReP boot",
}
_SIGNATURES = {
    Signature.HOLDS: "holds",
    Signature.BAD: "bad",
    Signature.MISSING: "missing",
    Signature.UNCHECKED: "unchecked",
}


def of_disk(path: Path, disk: Disk) -> dict[str, Any]:
    """Return the document of a disk image."""
    over_all = next((place.system for place in disk.places if place.partition is None), None)
    about = disk.architecture
    facts = {
        "form": disk.form,
        "file_size": disk.file_size,
        "size": disk.size,
        "complete": disk.whole,
        "data": disk.data,
        "holes": None if disk.data is None or disk.size is None else disk.size - disk.data,
        "table": _table(disk.table, disk.places) if disk.table else _named(disk.other_table),
        "content": _system(over_all),
        "virtualization": virtualization(disk),
        "boot": asdict(disk.boot) if disk.boot else None,
        "architecture": about.name if about else None,
        "architecture_by": [
            {"architecture": name, "by": by} for name, by in (about.found if about else ())
        ],
        "free_space": [_number(place) | asdict(old) for place, old in disk.old],
        "estimates": [asdict(one) for one in disk.estimates],
    }
    return _document(path, "disk", {"disk": facts}, remarks(disk), disk.unknown)


def _named(kind: str | None) -> dict[str, Any] | None:
    return {"kind": kind, "faults": [], "partitions": None} if kind else None


def _table(table: Table, places: list[Place]) -> dict[str, Any]:
    return {
        "kind": table.name,
        "faults": list(table.faults),
        "partitions": [_partition(place) for place in places if place.partition],
    }


def _partition(place: Place) -> dict[str, Any]:
    one = place.partition
    assert one is not None  # noqa: S101  # the caller's choice
    return {
        "number": one.number,
        "start": one.start,
        "size": one.size,
        "type": one.code,
        "type_name": _TYPES.get(one.code),
        "name": one.name or None,
        "uuid": str(one.uuid) if one.uuid else None,
        "bootable": one.bootable,
        "content": _system(place.system),
    }


def _number(place: Place) -> dict[str, int | None]:
    return {"partition": place.partition.number if place.partition else None}


def _system(system: System | None) -> dict[str, Any] | None:
    return asdict(system) if system else None


def of_bundles(path: Path, found: list[Bundle]) -> dict[str, Any]:
    """Return the document of a bundle, which may have several manifests."""
    told = dict.fromkeys(one for bundle in found for one in _of_bundle(bundle))
    unknown = [f"tar form of {one.path.name}: {one.why}" for one in found if not one.tar]
    facts = {"manifests": [_bundle(one) for one in found]}
    return _document(path, "bundle", {"bundle": facts}, tuple(told), unknown)


def _bundle(one: Bundle) -> dict[str, Any]:
    manifest = one.manifest
    return {
        "path": str(one.path),
        "version": manifest.version,
        "bundler": list(one.made_by),
        "name": manifest.name,
        "account": manifest.user,
        "architecture": manifest.arch,
        "type": manifest.image_type,
        "kernel": manifest.kernel,
        "ramdisk": manifest.ramdisk,
        "kernel_name": manifest.kernel_name,
        "block_device_mapping": [list(each) for each in manifest.mappings],
        "product_codes": list(manifest.product_codes),
        "ancestors": list(manifest.ancestors),
        "digest": manifest.digest,
        "size": manifest.size,
        "bundled_size": manifest.bundled_size,
        "signature": _SIGNATURES[one.signature],
        "parts": asdict(one.parts) | {"odd": [list(each) for each in one.parts.odd]},
        "tar": asdict(one.tar) if one.tar else None,
        "opens": _opens(one),
    }


def _opens(one: Bundle) -> dict[str, Any]:
    """Return who can open it: sizes of the keys, and which of EC2's it may be."""
    user = one.manifest.user_key if one.manifest.user_iv else None
    ec2 = one.manifest.ec2_key if one.manifest.ec2_iv else None
    stem = one.path.name.removesuffix(_ENDING)
    by_name = next((each for each in KNOWN_REGIONS if stem.endswith(f".{each}")), None)
    return {
        "user_key_bits": len(user) * 4 if user else None,
        "ec2_key_bits": len(ec2) * 4 if ec2 else None,
        "ec2_keys_that_fit": _fitting(ec2) if ec2 else [],
        "region_by_file_name": by_name,
    }


def _fitting(wrapped: str) -> list[str]:
    """Return the keys that may have made this: it has as many bits, and is a smaller number."""
    keys = {"standard": STANDARD_MODULUS} | OWN_MODULUS
    number, bits = int(wrapped, 16), len(wrapped) * 4
    return [
        name
        for name, modulus in keys.items()
        if number < modulus and (modulus.bit_length() + 7) // 8 * 8 == bits
    ]


def _of_bundle(one: Bundle) -> list[Remark]:
    found, parts, folder = [], one.parts, one.path.parent
    if parts.missing:
        found.append(
            Remark(
                "parts-missing",
                "warning",
                f"{len(parts.missing)} of {parts.count} parts are not there:"
                f" {', '.join(parts.missing[:3])}{', ...' if parts.missing[3:] else ''}",
                f"get them into {folder}, or name their folder with --parts",
            )
        )
    if parts.odd:
        listed = ", ".join(f"{name} ({size} bytes)" for name, size in parts.odd[:3])
        found.append(
            Remark(
                "part-size",
                "warning",
                f"parts have another size than they should: {listed}",
                "get them anew; bundlefs verify says which are damaged",
            )
        )
    if one.signature in (Signature.BAD, Signature.MISSING):
        found.append(
            Remark(
                "signature",
                "warning",
                f"signature: {one.signature.value}",
                "get it anew from where you trust it; bundlefs manifest makes one that is signed",
            )
        )
    if not one.manifest.user_key:
        found.append(
            Remark(
                "no-user-key",
                "note",
                "it has no key for a user, so that EC2 alone can open it",
                "bundle it with --user-key to open it later",
            )
        )
    return found


def of_mount(path: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a mount."""
    kind = "opened" if "access" in status else "images" if "images" in status else "bundle"
    return _document(path, "mount", {"mount": {"kind": kind, "status": status}}, (), [])


def _document(
    path: Path,
    what: str,
    facts: dict[str, Any],
    told: tuple[Remark, ...],
    unknown: list[str],
) -> dict[str, Any]:
    head = {"schema": SCHEMA, "path": str(path), "what": what}
    return head | facts | {"remarks": [asdict(one) for one in told], "unknown": unknown}
