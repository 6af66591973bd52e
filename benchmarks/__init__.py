"""How long things take, next to other ways of doing them; each module is a command."""
