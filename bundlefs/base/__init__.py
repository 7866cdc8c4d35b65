"""What every layer stands on: errors, spans, threads, files, text. It knows of no bundle."""
