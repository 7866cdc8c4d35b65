"""The recipes in contrib are well-formed, name what there is, and do what they say.

Shell by bash and shellcheck, the Containerfile by hadolint, the Jobs by Kubernetes' own schema.
What no linter knows is asked here: files that are copied, options that bundlefs has, volumes that
keep the state, commands of `ec2.md` against a server that answers for S3 and EC2.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from bundlefs.cli import parser
from bundlefs.keys.regions import OWN_MODULUS, STANDARD_REGIONS
from tests.support import images, servers
from tests.support.mounts import bundlefs
from tests.support.tools import run, tool

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib"
CONTAINER = CONTRIB / "container"
JOBS = sorted(CONTAINER.glob("*.yaml"))
UPLOADS = [path for path in JOBS if path.name != "jobs-sum.yaml"]


# Shell


SOURCED = {CONTRIB / "setup", CONTRIB / "machine"}


def is_shell(path: Path) -> bool:
    first = path.read_bytes().partition(b"\n")[0]
    return bool(re.match(rb"#!.*\b(ba|da)?sh\b", first)) or path in SOURCED


SCRIPTS = [path for path in sorted(CONTRIB.rglob("*")) if path.is_file() and is_shell(path)]


def complaints(*command: str | Path) -> str:
    """Run a checker; gives what it says if it is not content."""
    words = [tool(str(command[0])), *map(str, command[1:])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr or "no word") if done.returncode else ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(CONTRIB)))
def test_a_script_is_sound(script: Path) -> None:
    assert complaints("bash", "-n", script) == ""
    assert complaints("shellcheck", "-x", "-P", ROOT, script) == ""


def test_the_scripts_are_found_and_can_be_run() -> None:
    names = {str(path.relative_to(CONTRIB)) for path in SCRIPTS}
    assert {"check", "demo", "setup", "container/bundle-and-upload"} <= names
    assert [path for path in SCRIPTS if path not in SOURCED and not path.stat().st_mode & 1] == []


def test_an_unsound_script_would_be_seen(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/bash\nif true; then echo\n")
    assert "syntax error" in complaints("bash", "-n", script)
    script.write_text("#!/bin/bash\nrm $1\n")
    assert "SC2086" in complaints("shellcheck", script)


# The container


CONTAINERFILE = (CONTAINER / "Containerfile").read_text()


def instructions(name: str) -> list[str]:
    joined = CONTAINERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2] for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_the_containerfile_is_sound(tmp_path: Path) -> None:
    assert complaints("hadolint", CONTAINER / "Containerfile") == ""
    broken = tmp_path / "Containerfile"
    broken.write_text(CONTAINERFILE.replace("ENTRYPOINT", "ENTRYPONT"))
    assert "unexpected" in complaints("hadolint", broken)


def test_what_the_containerfile_copies_is_there() -> None:
    copies = [words.split() for words in instructions("COPY")]
    ours = [path for words in copies if not words[0].startswith("--") for path in words[:-1]]
    assert ours
    # The package itself may be installed elsewhere: the tests are then run beside no checkout.
    assert "bundlefs" in ours
    ours.remove("bundlefs")
    assert [path for path in ours if not (ROOT / path).exists()] == []
    stages = {name for line in instructions("FROM") for name in line.split(" AS ")[1:]}
    named = {word.partition("=")[2] for words in copies for word in words if "--from=" in word}
    assert named <= stages


def test_the_wheel_of_the_container_has_all_it_is_made_of() -> None:
    """What the project file names lies in what the build stage copies."""
    copied = {word for words in instructions("COPY") for word in words.split()[:-1]}
    named = set(re.findall(r'"(contrib/[^"]+|README\.md)"', (ROOT / "pyproject.toml").read_text()))
    assert named
    assert {name.partition("/")[0] for name in named} <= copied


def test_the_entry_point_is_in_the_path_and_can_be_run() -> None:
    [entry] = [json.loads(words) for words in instructions("ENTRYPOINT")]
    [[source, target]] = [
        words.split() for words in instructions("COPY") if words.endswith(f"/{entry[0]}")
    ]
    assert (ROOT / source).stat().st_mode & 0o111 == 0o111
    [path] = re.findall(r"PATH=(\S+)", " ".join(instructions("ENV")))
    assert str(Path(target).parent) in path.split(":")


# The Jobs


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pod(path: Path) -> dict[str, Any]:
    [job] = [one for one in documents(path) if one["kind"] == "Job"]
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_fits_the_schema_of_kubernetes(path: Path) -> None:
    version = kubernetes_validate.latest_version()
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**document, "specs": {}}, version, strict=True)


@pytest.mark.parametrize("path", UPLOADS, ids=lambda path: path.name)
def test_a_jobs_volumes_are_those_it_mounts(path: Path) -> None:
    spec = pod(path)
    [container] = spec["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert mounts["images"]["readOnly"]
    assert volumes["images"]["persistentVolumeClaim"]["readOnly"]
    claims = {one["metadata"]["name"] for one in documents(path) if "Claim" in one["kind"]}
    named = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes.values()
        if "persistentVolumeClaim" in volume
    }
    assert named == claims | {"images"}


@pytest.mark.parametrize("path", UPLOADS, ids=lambda path: path.name)
def test_a_jobs_state_outlasts_its_pod(path: Path) -> None:
    spec = pod(path)
    [container] = spec["containers"]
    home = {one["name"]: one["value"] for one in container["env"]}.get("XDG_STATE_HOME")
    state = Path(home) / "bundlefs" if home else Path("/var/lib/bundlefs")
    [name] = [
        mount["name"]
        for mount in container["volumeMounts"]
        if state.is_relative_to(mount["mountPath"])
    ]
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == name]
    assert "persistentVolumeClaim" in volume


@pytest.mark.parametrize("path", UPLOADS, ids=lambda path: path.name)
def test_a_jobs_secrets_are_those_it_tells_how_to_make(path: Path) -> None:
    spec = pod(path)
    [container] = spec["containers"]
    used = {one["secretRef"]["name"] for one in container["envFrom"]}
    used |= {one["secret"]["secretName"] for one in spec["volumes"] if "secret" in one}
    told = (CONTAINER / "job.yaml").read_text()
    assert used == set(re.findall(r"create secret generic (\S+)", told))
    assert "Secret" not in {one["kind"] for one in documents(path)}, "none is in the file"


@pytest.mark.parametrize("path", UPLOADS, ids=lambda path: path.name)
def test_a_jobs_options_are_options(path: Path) -> None:
    [container] = pod(path)["containers"]
    words = container["args"]
    command = "mount"
    if words[0] == "--folder":
        command, words = "bundle", words[2:]
    image, target, *options = words
    given = parser().parse_args([command, *options, image, "/folder"])
    assert given.run
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(image).parent) in mounts
    assert str(given.user_key.parent) in mounts
    remote = target.partition(":")[0].upper()
    assert f"RCLONE_CONFIG_{remote}_TYPE" in {one["name"] for one in container["env"]}


def test_many_jobs_are_told_apart_by_kubernetes() -> None:
    """Each image is an index of one Job, and its failure is its own."""
    [job] = [one["spec"] for one in documents(CONTAINER / "jobs.yaml") if one["kind"] == "Job"]
    assert job["completionMode"] == "Indexed"
    assert job["completions"] > job["parallelism"] > 1
    assert job["backoffLimitPerIndex"] > 0
    [wrong_usage, _] = job["podFailurePolicy"]["rules"]
    assert (wrong_usage["action"], wrong_usage["onExitCodes"]["values"]) == ("FailIndex", [2])


def test_the_sum_is_made_of_what_the_jobs_leave() -> None:
    [one, other] = [pod(CONTAINER / name) for name in ("jobs.yaml", "jobs-sum.yaml")]
    shared = {json.dumps(volume) for volume in one["volumes"]}
    for volume in other["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"].pop("readOnly")
        assert json.dumps(volume) in shared
    [[command, lists], [summing, [option, summed]]] = [
        (container["command"], container["args"])
        for spec in (one, other)
        for container in spec["containers"]
    ]
    assert command == summing == ["bundle-one-of"]
    assert (option, summed) == ("--sum", lists[0])


def test_the_job_without_fuse_asks_for_no_rights() -> None:
    """What the "restricted" Pod Security Standard demands."""
    spec = pod(CONTAINER / "job-without-fuse.yaml")
    [container] = spec["containers"]
    rights = container["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in rights
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"persistentVolumeClaim", "emptyDir", "secret"}


def indented(text: str) -> str:
    """Return the lines of the code blocks that are not fenced, continued lines joined."""
    bare = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line[4:] for line in bare.splitlines() if line.startswith("    ")]
    return "\n".join(lines).replace("\\\n", " ")


# What EC2 needs


EC2 = (CONTRIB / "ec2.md").read_text()


def section(title: str) -> str:
    """Return the text under a heading of ec2.md, down to the next."""
    return EC2.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_policy_grants_what_is_needed_and_no_more() -> None:
    [text] = re.findall(r"^```json\n(.*?)^```$", EC2, re.MULTILINE | re.DOTALL)
    policy = json.loads(text)
    assert policy["Version"] == "2012-10-17"
    granted = {one["Sid"]: (set(one["Action"]), one["Resource"]) for one in policy["Statement"]}
    assert {one["Effect"] for one in policy["Statement"]} == {"Allow"}
    bucket, objects = "arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/my-image/*"
    reads = ("ListBucket", "GetBucketLocation", "GetBucketOwnershipControls")
    assert granted == {
        "Bucket": ({f"s3:{name}" for name in (*reads, "GetEncryptionConfiguration")}, bucket),
        "Bundle": ({"s3:PutObject", "s3:PutObjectAcl", "s3:GetObject"}, objects),
        "Register": ({"ec2:RegisterImage", "ec2:DescribeImages"}, "*"),
    }


def test_the_regions_are_those_that_bundlefs_knows() -> None:
    standard, own, _ = section("Regions and other clouds").split("\n- ")[1:]
    name = r"\b[a-z]{2}(?:-gov)?-[a-z]+-\d\b"
    assert tuple(re.findall(name, standard)) == STANDARD_REGIONS
    assert tuple(re.findall(name, own)) == tuple(OWN_MODULUS)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[servers.Server]:
    with servers.moto(tmp_path) as server:
        yield server


def test_its_commands_make_a_bucket_and_an_ami(cloud: servers.Server, tmp_path: Path) -> None:
    image = images.text_image(tmp_path / "disk", 4096)
    bundlefs("bundle", "--state", "none", "--arch", "x86_64", image, tmp_path / "bundle")
    lines = [
        line.replace("/mnt/bundle", str(tmp_path / "bundle"))
        for line in indented(EC2).splitlines()
        if not line.startswith("bundlefs ")
    ]
    env = servers.settings(cloud, tmp_path)
    out = run(["bash", "-eu", "-c", "\n".join(lines)], env=env).decode()
    made, ownership, encryption, command, *registered = out.splitlines()
    assert made == "make_bucket: my-bucket"
    assert (ownership, encryption) == ("BucketOwnerPreferred", "AES256")
    told = [line for line in lines if line.startswith("aws ec2 register-image")]
    shown = told[0].replace("$REGION", servers.REGION).replace("$BUCKET", "my-bucket")
    assert sorted(shlex.split(command)) == sorted(shlex.split(shown))
    assert json.loads("".join(registered))["ImageId"].startswith("ami-")
    stored = servers.aws(cloud, tmp_path, "s3", "ls", "s3://my-bucket/my-image/").decode()
    names = [line.split()[-1] for line in stored.splitlines()]
    assert names == ["image.manifest.xml", "image.part.00"]
