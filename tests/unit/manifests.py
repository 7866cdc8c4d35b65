"""Manifests as each writer writes them, with other words in them, and what becomes of them."""

from bundlefs.manifest.read import BundleManifest, parse_manifest
from tests.unit.refusals import refusing

KEY = "<ec2_encrypted_key algorithm='AES-128-CBC'>e1e1</ec2_encrypted_key>"
PARTS = (
    "<parts count='2'>"
    "<part index='0'><filename>image.part.0</filename>"
    f"<digest algorithm='SHA1'>{'a0' * 20}</digest></part>"
    "<part index='1'><filename>image.part.1</filename>"
    f"<digest algorithm='SHA1'>{'b1' * 20}</digest></part>"
    "</parts>"
)
MACHINE = "<machine_configuration><architecture>x86_64</architecture></machine_configuration>"
IMAGE = (
    "<image><name>image</name><user>123456789012</user><type>machine</type>"
    f"<digest algorithm='SHA1'>{'1f' * 20}</digest>"
    "<size>1234</size><bundled_size>10485792</bundled_size>"
    f"{KEY}<user_encrypted_key algorithm='AES-128-CBC'>c3c3</user_encrypted_key>"
    "<ec2_encrypted_iv>e2e2</ec2_encrypted_iv><user_encrypted_iv>f2f2</user_encrypted_iv>"
    f"{PARTS}</image>"
)
PLAIN = (
    "<?xml version='1.0'?><manifest><version>2007-10-10</version>"
    "<bundler><name>ec2-ami-tools</name><version>1.5</version><release>1</release></bundler>"
    f"{MACHINE}{IMAGE}<signature>5151</signature></manifest>"
)

# As lxml writes it: no declaration, type behind the sizes, device before virtual name, an empty
# product code before each, and nothing where there is no key of the user.
EUCA2OOLS = (
    "<manifest><version>2007-10-10</version>"
    "<bundler><name>euca2ools</name><version>3.4.0</version><release>0</release></bundler>"
    "<machine_configuration><architecture>armhf</architecture>"
    "<kernel_id>eki-1</kernel_id><ramdisk_id>eri-2</ramdisk_id>"
    "<block_device_mapping><mapping><device>sda1</device><virtual>ami</virtual></mapping>"
    "<mapping><device>/dev/sda1</device><virtual>root</virtual></mapping></block_device_mapping>"
    "<product_codes><product_code/><product_code>774F4FF8</product_code></product_codes>"
    "</machine_configuration>"
    "<image><name>image</name><user>123456789012</user>"
    f'<digest algorithm="SHA1">{"1f" * 20}</digest><size>1234</size>'
    "<bundled_size>16</bundled_size><type>machine</type>"
    '<ec2_encrypted_key algorithm="AES-128-CBC">e1e1</ec2_encrypted_key>'
    "<user_encrypted_key/><ec2_encrypted_iv>e2e2</ec2_encrypted_iv><user_encrypted_iv/>"
    '<parts count="1"><part index="0"><filename>image.part.00</filename>'
    f'<digest algorithm="SHA1">{"a0" * 20}</digest></part></parts></image>'
    "<signature>UNSIGNED</signature></manifest>"
)

VERSION_3_IMAGE = f"""<image>
    <name>server-1.img</name>
    <user>123456789012</user>
    <digest algorithm="SHA1">{"1F" * 20}</digest>
    <size>2212962304</size>
    <bundled_size>334302128</bundled_size>
    <ec2_encrypted_key algorithm="AES-128-CBC">e1e1</ec2_encrypted_key>
    <user_encrypted_key algorithm="AES-128-CBC">c3c3</user_encrypted_key>
    <ec2_encrypted_iv>e2e2</ec2_encrypted_iv>
    <user_encrypted_iv>f2f2</user_encrypted_iv>
    <parts count="2">
      <part index="0">
        <filename>part00</filename>
        <digest>{"a0" * 20}</digest>
      </part>
      <part index="1">
        <filename>part01</filename>
        <digest algorithm="SHA1">{"b1" * 20}</digest>
      </part>
    </parts>
  </image>"""
VERSION_3 = f"""<?xml version="1.0"?>
<manifest>
  <version>3</version>
  <bundler>
    <name>ec2-ami-tools</name>
    <version>1.2</version>
    <release>7221</release>
  </bundler>
  {VERSION_3_IMAGE}
  <signature>51e6</signature>
</manifest>
"""


def parse(text: str) -> BundleManifest:
    """Read a manifest."""
    return parse_manifest(text.encode())


def refused(text: str, reason: str) -> None:
    """Show that `text` is refused for `reason`, in one line that a person can read."""
    with refusing(reason):
        parse(text)


def changed(old: str, new: str, text: str = PLAIN) -> str:
    """Put `new` in place of the first `old` in a manifest."""
    assert old in text
    return text.replace(old, new, 1)
