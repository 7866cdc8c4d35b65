"""The other bundlers' pipelines, as they run them, by their own sources."""

from pathlib import Path

from measure import Cost, shell

_KEY = "00112233445566778899aabbccddeeff"
_TAR = "tar -c -h -S --owner 0 --group 0 -C {folder} {name}"
_OPENSSL = f"openssl enc -e -aes-128-cbc -K {_KEY} -iv {_KEY}"

# ec2-bundle-image 1.5.3: one file, then cut, then read again for the digests [bundle.rb].
EC2_BUNDLE_IMAGE = (
    f"{_TAR} | tee >(sha1sum >digest) | gzip -9 | {_OPENSSL} >image.tar.gz.enc;"
    " split -b 10485760 -d -a 4 image.tar.gz.enc image.part.;"
    " rm image.tar.gz.enc; sha1sum image.part.* >digests"
)

# euca2ools 3.4: pigz, and parts cut and digested as the stream comes [pipes/fittings.py].
EUCA2OOLS = (
    f"{_TAR} | tee >(sha1sum >digest) | pigz | {_OPENSSL} |"
    " split -b 10485760 -d -a 4 --filter='tee $FILE | sha1sum >>digests' - image.part."
)


def bundle(recipe: str, image: Path, folder: Path) -> Cost:
    """Bundle `image` into the empty `folder`; measure it and the bundle's size."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    cost = shell(recipe.format(folder=image.parent, name=image.name), folder)
    size = sum(path.stat().st_size for path in folder.glob("image.part.*"))
    return Cost(cost.wall, cost.cpu, cost.peak, size)
