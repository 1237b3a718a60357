"""What `sam build` made: how large each function is, and whether it can be imported as Lambda will import it."""
