"""Look, and do not judge: each module asks one kind of thing and answers with values of `facts`."""
