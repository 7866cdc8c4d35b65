"""`bundlefs manifest`: other manifests for parts that stay as they are, undone by openssl."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.interop.back import done, leftovers, refused, report, the_line
from tests.mount.commands import in_namespace
from tests.support import bundles, images, oracles
from tests.support.bundles import BUNDLERS, IV, KEY, Made, Workshop
from tests.support.keys import KeyPair, make_key_pair
from tests.support.mounts import BUNDLEFS, settings
from tests.support.tools import ACCOUNT, run

REGION = "us-test-1"


@pytest.fixture(scope="module")
def image(workshop: Workshop) -> Path:
    return images.text_image(workshop.folder / "disk", 300_000)


@pytest.fixture(scope="module")
def made(workshop: Workshop, image: Path) -> Made:
    return workshop.make(image, BUNDLERS["ec2-ami-tools"])


@pytest.fixture(scope="module")
def other_region(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """The key of a region that the bundle was not made for."""
    return make_key_pair(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new.xml"


def own(made: Made, workshop: Workshop) -> tuple[str | Path, ...]:
    return ("manifest", made.manifest, "--user-key", workshop.user.private)


def modulus_size(manifest: Path) -> int:
    """Return the bytes of the EC2 key that a manifest is for."""
    return len(oracles.element(manifest, "ec2_encrypted_key")) // 2


def assert_whole(new: Path, made: Made, workshop: Workshop, scratch: Path) -> None:
    """Check what must hold of every new manifest: signature, the user's secrets, parts, image."""
    assert oracles.verify_signature(new, workshop.user.public, scratch) == "Verified OK"
    assert oracles.secrets(new, workshop.user.private) == oracles.Secrets(KEY, IV)
    for look in (oracles.part_names, oracles.part_digests, oracles.image_digest):
        assert look(new) == look(made.manifest)
    for name in ("size", "bundled_size"):
        assert oracles.element(new, name) == oracles.element(made.manifest, name)
    words = ("verify", new, "--parts", made.manifest.parent, "--user-key", workshop.user.private)
    assert [outcome for outcome, _ in report(done(*words).out).values()] == ["ok"] * 5


def test_for_a_region_whose_key_we_hold(
    made: Made, workshop: Workshop, other_region: KeyPair, new: Path
) -> None:
    before = run(["sha1sum", *made.parts, made.manifest])
    for_region = ("--region", REGION, "--ec2-cert", f"{REGION}={other_region.certificate}")
    done(*own(made, workshop), *for_region, "-o", new)
    assert oracles.secrets(new, other_region.private, "ec2") == oracles.Secrets(KEY, IV)
    with pytest.raises(AssertionError):
        oracles.secrets(new, workshop.ec2.private, "ec2")
    assert_whole(new, made, workshop, new.parent)
    assert run(["sha1sum", *made.parts, made.manifest]) == before


def test_ec2s_new_key_undoes_the_old_parts(
    made: Made, workshop: Workshop, other_region: KeyPair, new: Path
) -> None:
    done(*own(made, workshop), "--ec2-cert", other_region.public, "-o", new)
    secrets = oracles.secrets(new, other_region.private, "ec2")
    oracles.compare_streaming(made.parts, secrets, made.image)
    words = ("unbundle", new, "--parts", made.manifest.parent, "--ec2-key", other_region.private)
    done(*words, "-o", new.with_name("disk"))
    oracles.assert_same(new.with_name("disk"), made.image)


@pytest.mark.parametrize("region", ["cn-north-1", "us-gov-west-1"])
def test_for_a_region_with_a_key_of_its_own(
    made: Made, workshop: Workshop, new: Path, region: str
) -> None:
    done(*own(made, workshop), "--region", region, "-o", new)
    standard = new.with_name("standard.xml")
    done(*own(made, workshop), "-o", standard)
    # two keys of one size cannot be told apart by what they encrypt; that it is not the
    # bundle's old one can
    assert_whole(new, made, workshop, new.parent)
    assert modulus_size(new) >= 128
    assert oracles.element(new, "ec2_encrypted_key") != oracles.element(
        made.manifest, "ec2_encrypted_key"
    )


def test_several_regions_to_a_folder(
    made: Made, workshop: Workshop, other_region: KeyPair, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    regions = ("us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1", REGION)
    words = [word for region in regions for word in ("--region", region)]
    cert = ("--ec2-cert", f"{REGION}={other_region.public}")
    ending = done(*own(made, workshop), *words, *cert, "-o", out)
    # regions that share a key share a manifest
    names = ["image.manifest.xml"] + [
        f"image.{region}.manifest.xml" for region in ("cn-north-1", "us-gov-west-1", REGION)
    ]
    assert leftovers(out) == sorted(names)
    assert ending.out == ""
    assert "us-east-1, eu-west-1" in ending.err
    for name in names:
        assert_whole(out / name, made, workshop, tmp_path)
    wrapped = out / f"image.{REGION}.manifest.xml"
    assert oracles.secrets(wrapped, other_region.private, "ec2") == oracles.Secrets(KEY, IV)


def test_several_regions_need_a_folder(made: Made, workshop: Workshop, new: Path) -> None:
    words = (*own(made, workshop), "--region", "us-east-1", "--region", "cn-north-1")
    for output in ((), ("-o", "-"), ("-o", new)):
        assert "folder" in refused(*words, *output, code=2)
    assert not new.exists()


@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_to_standard_output(
    made: Made, workshop: Workshop, new: Path, output: tuple[str, ...]
) -> None:
    ending = done(*own(made, workshop), *output)
    new.write_text(ending.out)
    assert_whole(new, made, workshop, new.parent)
    assert ending.err == ""


def test_nothing_changes_unasked(made: Made, workshop: Workshop, new: Path) -> None:
    done(*own(made, workshop), "-o", new)
    text = new.read_text()
    assert bundles.MAPPING in text
    assert oracles.element(new, "user") == ACCOUNT
    assert oracles.element(new, "architecture") == "x86_64"
    assert oracles.element(new, "type") == "machine"
    assert "kernel_id" not in text


def test_kernel_ramdisk_mapping_and_the_rest(
    made: Made, workshop: Workshop, new: Path, tmp_path: Path
) -> None:
    machine = ("--kernel", "aki-11111111", "--ramdisk", "ari-22222222", "--arch", "i386")
    mapping = ("-B", "ami=sda2", "-B", "swap=sda3")
    done(*own(made, workshop), *machine, *mapping, "--account", "9999-8888-7777", "-o", new)
    text = new.read_text()
    assert oracles.element(new, "kernel_id") == "aki-11111111"
    assert oracles.element(new, "ramdisk_id") == "ari-22222222"
    assert oracles.element(new, "architecture") == "i386"
    assert oracles.element(new, "user") == "999988887777"
    pairs = re.findall("<virtual>([^<]*)</virtual><device>([^<]*)</device>", text)
    assert sorted(pairs) == [("ami", "sda2"), ("swap", "sda3")]
    assert_whole(new, made, workshop, tmp_path)
    none = tmp_path / "none.xml"
    back = ("manifest", new, "--user-key", workshop.user.private)
    done(*back, "--kernel", "", "--ramdisk", "", "-B", "", "-o", none)
    assert not re.search("kernel_id|ramdisk_id|mapping", none.read_text())
    assert_whole(none, made, workshop, tmp_path)


@pytest.mark.parametrize("name", ["rPath, version 3", "ec2-ami-tools, version 2007-08-29"])
def test_from_an_old_version(
    name: str, image: Path, workshop: Workshop, new: Path, tmp_path: Path
) -> None:
    made = workshop.make(image, BUNDLERS[name], name)
    done(*own(made, workshop), "-o", new)
    assert "<manifest><version>2007-10-10</version>" in new.read_text()
    assert oracles.element(new, "type") == "machine"
    assert_whole(new, made, workshop, tmp_path)


def test_from_ec2s_copy_alone(
    image: Path, workshop: Workshop, other_region: KeyPair, new: Path
) -> None:
    bundler = BUNDLERS["euca2ools, unsigned"]
    made = workshop.make(image, bundler, "unsigned")
    words = ("manifest", made.manifest, *workshop.key(bundler))
    done(*words, "--ec2-cert", other_region.public, "-o", new)
    assert oracles.secrets(new, other_region.private, "ec2") == oracles.Secrets(KEY, IV)
    # EC2 refuses a manifest without a signature or a user's key, so there are some
    assert len(oracles.element(new, "signature")) == 512
    assert oracles.element(new, "user_encrypted_key")


def test_an_iv_of_sixteen_digits(
    image: Path, workshop: Workshop, other_region: KeyPair, new: Path
) -> None:
    made = workshop.make(image, BUNDLERS["scalarizr"], "scalarizr")
    done(*own(made, workshop), "--ec2-cert", other_region.public, "-o", new)
    whole = oracles.Secrets(KEY, bundles.SCALR_IV.ljust(32, "0"))
    assert oracles.secrets(new, other_region.private, "ec2") == whole
    oracles.compare_streaming(made.parts, whole, made.image)


def test_the_name_keeps_its_marks(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(workshop.user, name="a &lt;&amp;&gt; b")
    out = tmp_path / "out"
    out.mkdir()
    done(*own(copy, workshop), "--region", "cn-north-1", "-o", out)
    assert leftovers(out) == ["a <&> b.cn-north-1.manifest.xml"]
    new = out / "a <&> b.cn-north-1.manifest.xml"
    assert "<image><name>a &lt;&amp;&gt; b</name>" in new.read_text()
    assert_whole(new, made, workshop, tmp_path)


def test_a_name_that_is_a_path_leads_nowhere(
    made: Made, workshop: Workshop, tmp_path: Path
) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(workshop.user, name="../outside/evil")
    for name in ("inside", "outside"):
        (tmp_path / name).mkdir()
    done(*own(copy, workshop), "--region", "cn-north-1", "-o", tmp_path / "inside")
    assert leftovers(tmp_path / "inside") == ["image.cn-north-1.manifest.xml"]
    assert leftovers(tmp_path / "outside") == []


def test_a_file_is_overwritten_only_by_force(made: Made, workshop: Workshop, new: Path) -> None:
    new.write_text("dear")
    words = (*own(made, workshop), "-o", new)
    assert "--force" in refused(*words)
    assert new.read_text() == "dear"
    done(*words, "--force")
    assert_whole(new, made, workshop, new.parent)
    assert leftovers(new.parent) == ["new.xml", "signature"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--region", "eu-nowhere-9"], 2, "eu-nowhere-9"),
        (["--region", "me-south-1"], 2, "--ec2-cert me-south-1=PEM"),
        (["--account", "12345"], 2, "12345"),
        (["-B", "ami"], 2, "ami"),
        (["--arch", "PDP 11"], 2, "PDP 11"),
        (["--ec2-cert", "/missing.pem"], 2, "/missing.pem"),
        (["-o", "/missing/new.xml"], 1, "/missing/new.xml"),
    ],
)
def test_what_cannot_be(
    made: Made, workshop: Workshop, words: list[str], code: int, says: str
) -> None:
    assert says in refused(*own(made, workshop), *words, code=code)


@pytest.mark.parametrize("missing", ["digest", "bundled_size"])
def test_what_the_manifest_must_say(
    made: Made, workshop: Workshop, tmp_path: Path, missing: str
) -> None:
    copy = made.copy(tmp_path / "copy")
    copy.rewrite(workshop.user, **{missing: None})
    assert "lacks the digest or the bundled size" in refused(*own(copy, workshop))


def test_the_wrong_key(made: Made, workshop: Workshop, new: Path) -> None:
    words = ("manifest", made.manifest, "--user-key", workshop.ec2.private, "-o", new)
    assert "does not open" in refused(*words)
    assert "--user-key" in refused("manifest", made.manifest, "-o", new)
    assert leftovers(new.parent) == []


FULL = """
mount -t tmpfs -o size=8k none "$1"
cd "$1"
head -c 8k /dev/zero > taken 2>/dev/null || true
shift
"$@" -o new.xml 2>&1 || echo "code $?"
ls -A
"""


def test_a_full_disk(made: Made, workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    command = [*in_namespace(FULL, tmp_path / "full", *BUNDLEFS), *own(made, workshop)]
    words = [str(word) for word in command]
    shown = subprocess.run(words, env=settings(), capture_output=True, text=True, check=True)
    line, code, *rest = shown.stdout.splitlines(keepends=True)
    assert the_line(line).endswith("new.xml: No space left on device")
    assert (code, rest) == ("code 1\n", ["taken\n"])


def test_a_full_pipe(made: Made, workshop: Workshop) -> None:
    words = [str(word) for word in (*BUNDLEFS, *own(made, workshop))]
    pipe = subprocess.PIPE
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            words, stdout=full, stderr=pipe, text=True, env=settings(), check=False
        )
    assert ended.returncode == 1
    assert the_line(ended.stderr).endswith("standard output: No space left on device")
