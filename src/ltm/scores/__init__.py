"""Ask every model every item and condense the answers."""
