"""What every layer stands on: it knows of no bundle. pyproject.toml has the order of its modules.

- Text and numbers: `errors`, `escapes`, `checks`, `times`, `spans`, `holes`.
- Files: `files` makes, reads and writes them; `descriptors` keeps them open; `storage` knows
  whether they answer.
- Memory: `memory` tells how much there is, `heap` bounds what the C library keeps, `buffers` are
  used again, `recent` keeps what is costly to make.
- Threads: `workers` are those of a mount, built on `threads`, `lanes`, `turns`, `room` and
  `ordered`; `futures` tell those who wait, `progress` tells them how far it is; `signals` end the
  program.
"""
