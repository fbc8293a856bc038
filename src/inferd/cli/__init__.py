"""The command line. Modules import click alone; what a command needs is imported when it runs."""
