"""Bytecode of what goes into the cloud: Lambda cannot keep any, so that every cold start would compile anew.

It is for this Python's minor version, which is Lambda's, and is never compared with its source, whose time changes on
the way. Docstrings are left out, a fifth of it; asserts stay.
"""

import ast
import importlib.util
import marshal

UNCHECKED_HASH = 1
"""PEP 552's flags: a hash of the source, which nobody checks."""
HEAD = 16
"""Bytes before the code: Python's version, the flags, and from 8 on the hash of the source."""
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def compiled(source: bytes, lies_in: str) -> bytes:
    """The content of a .pyc file. `lies_in`: where the source is said to lie, for tracebacks. Raises SyntaxError."""
    tree = ast.parse(source, lies_in)
    for node in ast.walk(tree):
        while isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body.pop(0)
            if not node.body and not isinstance(node, ast.Module):
                node.body.append(ast.copy_location(ast.Pass(), docstring))
    code = compile(tree, lies_in, "exec", dont_inherit=True)
    head = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH.to_bytes(4, "little") + importlib.util.source_hash(source)
    return head + marshal.dumps(code)
