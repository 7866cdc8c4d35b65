"""What `import bundlefs` gives: names that are there, documented and typed, and no event loop."""

import ast
import inspect
import subprocess
import sys
from collections import ChainMap
from collections.abc import Iterator
from importlib import resources
from types import FunctionType
from typing import get_type_hints

import pytest

import bundlefs

NAMES = [name for name in bundlefs.__all__ if name != "__version__"]


# --- the names ---


@pytest.mark.parametrize("name", bundlefs.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(bundlefs, name) is getattr(bundlefs, name)
    assert name in dir(bundlefs)


def test_a_star_imports_them_all() -> None:
    found: dict[str, object] = {}
    exec("from bundlefs import *", found)  # noqa: S102  # not to be had in a function
    assert set(bundlefs.__all__) <= set(found)


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports under TYPE_CHECKING, the interpreter a table: one for the other."""
    imported = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(bundlefs)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bundlefs.")
        for alias in node.names
    }
    assert imported == set(NAMES)


@pytest.mark.parametrize("name", ["Nothing", "trio", "BLOCK_SIZE", "", "__wrapped__"])
def test_no_other_name_is_there(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'bundlefs' has no attribute '{name}'"):
        getattr(bundlefs, name)
    assert name not in dir(bundlefs)
    assert not hasattr(bundlefs, name)


def test_an_unknown_name_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="cannot import name 'Nothing' from 'bundlefs'"):
        exec("from bundlefs import Nothing")  # noqa: S102  # mypy would not have it as a statement


# --- what is said of them ---


def functions(thing: object) -> Iterator[tuple[str, FunctionType]]:
    """Yield the function itself, or the public methods and the properties of a class."""
    if isinstance(thing, FunctionType):
        yield thing.__name__, thing
    if not inspect.isclass(thing):
        return
    # Those that it has of another class of ours are as public as its own.
    kinds = [kind for kind in thing.__mro__ if kind.__module__.startswith("bundlefs.")]
    for name, member in ChainMap(*(dict(vars(kind)) for kind in kinds)).items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, property):
            member = member.fget  # noqa: PLW2901  # what it comes down to
        function = inspect.unwrap(getattr(member, "__func__", member))
        # Protocols get an `__init__` from typing.
        if isinstance(function, FunctionType) and function.__module__ != "typing":
            yield f"{thing.__name__}.{name}", function


CALLS = dict(call for name in NAMES for call in functions(getattr(bundlefs, name)))


def test_the_functions_are_found() -> None:
    assert {
        "BundleWriter.write",
        "Sink.open",
        "open_bundle",
        "view_image",
        "Bundle.from_image",
    } <= set(CALLS)
    assert len(CALLS) > 40


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_words_of_its_own(name: str) -> None:
    thing = getattr(bundlefs, name)
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert doc
    # Where none is written, `dataclass` makes one of the signature.
    assert not doc.startswith(f"{name}(")


@pytest.mark.parametrize("call", [call for call in CALLS if not call.endswith("__init__")])
def test_every_function_has_a_docstring(call: str) -> None:
    assert CALLS[call].__doc__
    assert inspect.getdoc(CALLS[call])


@pytest.mark.parametrize("call", CALLS)
def test_every_function_is_typed(call: str) -> None:
    function = CALLS[call]
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    untyped = [name for name in parameters if name not in hints and name not in ("self", "cls")]
    assert untyped == []
    assert "return" in hints


def test_type_checkers_are_told_so() -> None:
    """CI runs the tests against the wheel, so it is in that."""
    assert resources.files("bundlefs").joinpath("py.typed").is_file()


# --- what it loads ---

USE = """
import sys, tempfile
from pathlib import Path
import bundlefs
assert not [name for name in sys.modules if name.startswith("bundlefs.")], "it loads little"
from bundlefs import *
assert all(hasattr(bundlefs, name) for name in bundlefs.__all__)
image, folder = bytes(range(256)) * 8192, Path(tempfile.mkdtemp())
keys, metadata, sink = UserKeys.load(None, None), Metadata("123456789012"), DirectorySink(folder)
with BundleWriter("image", len(image), sink, user_keys=keys) as writer:
    writer.write(image)
writer.write_manifest(metadata)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
(folder / "key.pem").write_bytes(
    keys.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
)
with open_bundle(folder / "image.manifest.xml", folder / "key.pem") as disk:
    assert disk.read(1000, 100_000) == image[1000:101_000]
(folder / "disk.raw").write_bytes(image)
with Bundle.from_image(folder / "disk.raw", metadata) as bundle:
    assert [bundle.size(name) > 0 for name in bundle.names()] == [True, True]
print(*sorted({"pyfuse3", "trio"} & set(sys.modules)))
"""
FORBID = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyfuse3", "trio"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nowhere())
try:
    import trio
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("it could be imported")
"""


def printed(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_programs_load_no_event_loop() -> None:
    assert printed(USE) == "\n"


def test_programs_need_no_event_loop() -> None:
    assert printed(FORBID + USE) == "\n"


def test_commands_load_no_event_loop_to_be_parsed() -> None:
    script = "import sys; import bundlefs.cli; print({'pyfuse3', 'trio'} & set(sys.modules))"
    assert printed(script) == "set()\n"
