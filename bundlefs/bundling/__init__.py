"""From an image to its bundle: what is made, who makes it, and who may ask for it.

- What: `recipe` says what is made of an image, `names` how the files are called, `plan` what the
  frontier and the readers share.
- Blocks: `maker` reads and deflates them, `sealer` encrypts and digests them in order, `store`
  keeps them.
- The first time: `frontier` moves forward as far as anyone asks, `steps` says what it does for
  each block, `phases` when it moves.
- Again: `stream` reads any bytes behind the frontier.
- Files: `files` is what is known of them, `manifests` renders those, `status` counts, `view` is
  all that a mount asks for, `bundle` the same by name for programs.
- Without a mount: `export` writes a bundle to a sink, `writer` takes an image as a stream, `sinks`
  are where files go.
- `assembly` puts all of it together, and closes it in the right order.
"""
