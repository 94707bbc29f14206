"""The commands of `vestnik`, one small module a subject. Each imports what it needs when it runs, so that `--help` stays fast."""
