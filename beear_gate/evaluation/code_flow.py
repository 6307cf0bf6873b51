"""Follows arguments and requests through a program to where they do harm: CWE-22, 78, 79 and 89.

One pass over each function in the order of its lines, both branches of a condition one after the other, loops once.
Every argument is taken to come from a stranger; what a check has proven of it is believed in the branch where the check
holds. Results of functions of the same file are worked out, those of others are believed as far as `code_values` says.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from beear_gate.evaluation.code_checks import Proven, proven, raised
from beear_gate.evaluation.code_library import CHANGING, result_of
from beear_gate.evaluation.code_names import Function, Imported, Weakness, dotted, imports, last
from beear_gate.evaluation.code_sinks import at_call, at_return, built, route_of
from beear_gate.evaluation.code_values import (
    CLEAN,
    LONGEST,
    NOTHING,
    REMOTE,
    Value,
    concatenated,
    is_remote,
    joined,
    of_parameter,
    union,
)

_STEPS = 20
"""How often each node may be looked at on average: conditions in conditions would else take for ever."""
_ENDS = (ast.Raise, ast.Return, ast.Continue, ast.Break)
_LEAVING = ("exit", "abort", "_exit", "quit", "error", "fail")


class TooMuch(Exception):
    """The program is too entangled to be followed."""


def weaknesses(tree: ast.Module) -> set[Weakness]:
    """What harm the arguments of each function can do.

    Raises:
        TooMuch, RecursionError: the program cannot be followed to its end.
    """
    program = _Program(tree)
    scope = _Scope(program, {})
    scope.run(tree.body)
    return program.found


class _Program:
    """What all scopes share."""

    def __init__(self, tree: ast.Module) -> None:
        self.imported: Imported = imports(tree)
        self.functions = {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}
        self.returned: dict[str, Value] = {}
        self.found: set[Weakness] = set()
        self.steps = _STEPS * sum(1 for _ in ast.walk(tree)) + 1000


class _Scope:
    """The names of one function, or of the module, as far as it has been read.

    Attributes:
        names: what each name may hold, "self.x" for attributes.
        assigned: the test that a name stands for.
        route: the web framework whose route this is; "" for none.
    """

    def __init__(self, program: _Program, names: Mapping[str, Value], route: str = "") -> None:
        self.program = program
        self.imported = program.imported
        self.names = dict(names)
        self.assigned: dict[str, ast.expr] = {}
        self.route = route
        self.returns: list[Value] = []

    # --- statements

    def run(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node)
            case ast.ClassDef():
                self.klass(node)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.bind(target, self.value(value), value)
            case ast.AnnAssign(target=target, value=value) if value:
                self.bind(target, self.value(value), value)
            case ast.AugAssign(target=target, value=value):
                self.bind(target, self.built(node, concatenated([self.value(target), self.value(value)])))
            case ast.Expr(value=value):
                self.value(value)
                self.know(raised(value, self.value, self.imported))
            case ast.Return(value=value):
                if value is not None:
                    self.returns.append(found := self.value(value))
                    self.report(at_return(value, found, self.route, self.imported))
            case ast.If():
                self.branch(node)
            case ast.While(test=test, body=body, orelse=orelse):
                self.value(test)
                self.know(proven(test, self.value, self.imported, self.assigned)[0])
                self.run([*body, *orelse])
            case ast.Assert(test=test):
                self.know(proven(test, self.value, self.imported, self.assigned)[0])
            case ast.For() | ast.AsyncFor():
                self.bind(node.target, self.element(node.iter))
                self.run([*node.body, *node.orelse])
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    held = self.value(item.context_expr)
                    if item.optional_vars:
                        self.bind(item.optional_vars, held)
                self.run(node.body)
            case ast.Try() | ast.TryStar():
                handlers = [each for handler in node.handlers for each in handler.body]
                self.run([*node.body, *handlers, *node.orelse, *node.finalbody])
            case ast.Match():
                self.value(node.subject)
                for case in node.cases:
                    self.run(case.body)
            case ast.Raise() | ast.Delete():
                pass

    def branch(self, node: ast.If) -> None:
        self.value(node.test)
        true, false = proven(node.test, self.value, self.imported, self.assigned)
        before = dict(self.names)
        self.know(true)
        self.run(node.body)
        after_body, self.names = self.names, before
        self.know(false)
        self.run(node.orelse)
        if _leaves(node.body):
            return
        if node.orelse and _leaves(node.orelse):
            self.names = after_body
            return
        for name, value in after_body.items():
            other = self.names.get(name, NOTHING)
            self.names[name] = Value(value.kinds | other.kinds, max(value.text, other.text, key=len), value.items)

    def function(self, node: Function) -> None:
        """Read a function with arguments of strangers; what it returns is kept for its callers."""
        if node.name in self.program.returned and self.program.functions[node.name] is node:
            return
        if self.program.functions.get(node.name) is node:
            self.program.returned[node.name] = NOTHING  # for calls of itself
        route = route_of(node, self.imported)
        inner = _Scope(self.program, self.names, route)
        arguments = node.args
        for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            inner.names[each.arg] = of_parameter(each, bool(route))
        for extra in (arguments.vararg, arguments.kwarg):
            if extra:
                inner.names[extra.arg] = of_parameter(extra, bool(route))
        inner.run(node.body)
        if self.program.functions.get(node.name) is node:
            self.program.returned[node.name] = Value(union(inner.returns))
        if node.name == "__init__":
            self.names |= {name: value for name, value in inner.names.items() if name.startswith("self.")}

    def klass(self, node: ast.ClassDef) -> None:
        """Methods know what `__init__` put into self."""
        inner = _Scope(self.program, self.names)
        inner.run(sorted(node.body, key=lambda each: getattr(each, "name", "") != "__init__"))

    def bind(self, target: ast.expr, value: Value, source: ast.expr | None = None) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value
                self.assigned.pop(name, None)
                if source is not None:
                    self.assigned[name] = source
            case ast.Attribute():
                self.names[dotted(target, self.imported)] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                parts = value.items if value.items and len(value.items) == len(targets) else None
                for place, each in enumerate(targets):
                    self.bind(each, parts[place] if parts else Value(value.kinds))
            case ast.Starred(value=inner):
                self.bind(inner, Value(value.kinds))
            case ast.Subscript(value=inner):
                self.add(inner, value)

    def add(self, target: ast.expr, value: Value) -> None:
        """A list or a mapping has got one more."""
        name = dotted(target, self.imported)
        held = self.names.get(name, NOTHING)
        self.names[name] = Value(held.kinds | value.kinds, held.text, held.items)

    def know(self, facts: Proven) -> None:
        for name, kinds in facts.items():
            if name in self.names:
                self.names[name] = self.names[name].without(kinds)

    def report(self, found: Iterable[Weakness]) -> None:
        self.program.found.update(found)

    # --- expressions

    def value(self, node: ast.expr) -> Value:
        """What an expression may hold; what is wrong in it is reported on the way."""
        self.program.steps -= 1
        if self.program.steps < 0:
            raise TooMuch
        if is_remote(node, self.imported) and dotted(node, self.imported) not in self.names:
            return Value(REMOTE)
        match node:
            case ast.Constant(value=str() | bytes() as text):
                return Value(text=(text if isinstance(text, str) else text.decode("latin-1"))[:LONGEST])
            case ast.Name(id=name):
                return self.names.get(name, NOTHING)
            case ast.Attribute():
                return self.attribute(node)
            case ast.JoinedStr(values=parts):
                return self.built(node, concatenated(self.value(each) for each in parts))
            case ast.FormattedValue(value=inner):
                held = self.value(inner)
                return held if held.kinds else Value(text=held.text or "{}")
            case ast.BinOp():
                return self.operation(node)
            case ast.Call():
                return self.call(node)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                items = tuple(self.value(each) for each in parts)
                return Value(union(items), items=items)
            case ast.Dict(keys=keys, values=values):
                return Value(union(self.value(each) for each in [*keys, *values] if each is not None))
            case ast.Subscript(value=inner, slice=index):
                self.value(index)
                return Value(self.value(inner).kinds - {"split"})
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.value(test)
                true, false = proven(test, self.value, self.imported, self.assigned)
                one, other = self.under(true, body), self.under(false, orelse)
                return Value(one.kinds | other.kinds, max(one.text, other.text, key=len))
            case ast.BoolOp(values=values):
                either = [self.value(each) for each in values]
                return Value(union(either), next((each.text for each in either if each.text), ""))
            case ast.NamedExpr(target=target, value=inner):
                self.bind(target, found := self.value(inner), inner)
                return found
            case ast.ListComp(elt=element) | ast.SetComp(elt=element) | ast.GeneratorExp(elt=element):
                return self.comprehension(node, [element])
            case ast.DictComp(key=key, value=element):
                return self.comprehension(node, [key, element])
            case ast.Await(value=inner) | ast.Starred(value=inner) | ast.YieldFrom(value=inner):
                return self.value(inner)
            case ast.Yield(value=inner) if inner is not None:
                return self.value(inner)
            case ast.Lambda(args=arguments, body=body):
                inner_scope = _Scope(self.program, self.names)
                inner_scope.names |= {each.arg: of_parameter(each, False) for each in arguments.args}
                inner_scope.value(body)
                return NOTHING
            case ast.Compare(left=left, comparators=others):
                for each in (left, *others):
                    self.value(each)
                return NOTHING
        return NOTHING

    def attribute(self, node: ast.Attribute) -> Value:
        name = dotted(node, self.imported)
        if name in self.names:
            return self.names[name]
        held = self.value(node.value)
        if node.attr in ("name", "stem", "suffix") and "pathlib" in held.kinds:
            return held.without({"dots", "absolute", "pathlib"})
        if node.attr in ("parent", "parents"):
            return held
        return Value(held.kinds - {"split"})

    def operation(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        match node.op:
            case ast.Add():
                if left.items is not None:
                    return Value(left.kinds | right.kinds, items=left.items + (right.items or (Value(right.kinds),)))
                return self.built(node, concatenated([left, right]))
            case ast.Mod() if left.text:
                return self.built(node, Value(concatenated([left, Value(right.kinds)]).kinds, left.text))
            case ast.Div():
                return joined([left, right])
            case ast.Mult():
                return Value(left.kinds | right.kinds, left.text)
        return Value(CLEAN)

    def comprehension(self, node: ast.expr, elements: list[ast.expr]) -> Value:
        assert isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp)
        outer = dict(self.names)
        for generator in node.generators:
            self.bind(generator.target, self.element(generator.iter))
            for test in generator.ifs:
                self.value(test)
                self.know(proven(test, self.value, self.imported, self.assigned)[0])
        found = [self.value(each) for each in elements]
        self.names = outer
        return Value(union(found), found[0].text)

    def element(self, node: ast.expr) -> Value:
        """What one turn of a loop gets."""
        held = self.value(node)
        return Value(held.kinds - {"split"}, held.text, held.items[0].items if held.items else None)

    def under(self, facts: Proven, node: ast.expr) -> Value:
        outer = dict(self.names)
        self.know(facts)
        found = self.value(node)
        self.names = outer
        return found

    def call(self, node: ast.Call) -> Value:
        name = dotted(node.func, self.imported)
        arguments = [self.value(each) for each in node.args]
        named = {each.arg or "**": self.value(each.value) for each in node.keywords}
        receiver = self.value(node.func.value) if isinstance(node.func, ast.Attribute) else NOTHING
        if isinstance(node.func, ast.Lambda):
            self.value(node.func)
        self.report(at_call(node, name, receiver, arguments, named, self.imported))
        return self.result(node, name, receiver, arguments, named)

    def result(
        self, node: ast.Call, name: str, receiver: Value, arguments: list[Value], named: Mapping[str, Value]
    ) -> Value:
        short = last(name)
        if short in CHANGING and isinstance(node.func, ast.Attribute):
            self.add(node.func.value, Value(union([*arguments, *named.values()])))
            return NOTHING
        own = self.program.functions.get(short)
        if own is not None and (name == short or name.startswith(("self.", "cls."))):
            if short not in self.program.returned:
                self.function(own)
            given = union([receiver, *arguments, *named.values()])
            return Value(self.program.returned[short].kinds & (given | {"joined"}))
        found = result_of(node, name, receiver, arguments, named, self.imported)
        return self.built(node, found) if short == "format" else found

    def built(self, node: ast.AST, value: Value) -> Value:
        self.report(built(getattr(node, "lineno", 0), value))
        return value


def _leaves(body: list[ast.stmt]) -> bool:
    """Whether nothing behind a branch is reached from it."""
    final = body[-1] if body else None
    if isinstance(final, ast.Expr) and isinstance(final.value, ast.Call):
        return last(dotted(final.value.func, {})) in _LEAVING
    if isinstance(final, ast.If) and final.orelse:
        return _leaves(final.body) and _leaves(final.orelse)
    return isinstance(final, _ENDS)
