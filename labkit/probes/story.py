"""From the recorder's notes to a `Report`."""

import linecache

from labkit.probes.blame import blame
from labkit.probes.composite import as_written
from labkit.probes.events import Event
from labkit.probes.fates import fates, thrown_away
from labkit.probes.finding import Finding
from labkit.probes.flow import Flow
from labkit.probes.frames import file_name
from labkit.probes.headroom import headroom
from labkit.probes.heirs import unite
from labkit.probes.idle import idle
from labkit.probes.outgrown import outgrown
from labkit.probes.raised import raised, unserved, without_graph
from labkit.probes.report import Culprit, Link, Op, Report
from labkit.probes.severed import severed
from labkit.probes.still import reword, still
from labkit.probes.verdict import Verdict


def tell(session) -> Report:
    """The whole story of a session."""
    teller = Teller(session)
    unite(session)
    finding = blame(session)
    parameters, leaves = fates(session)
    flow = Flow(session)
    cut = severed(session, parameters, leaves, flow)
    stopped = raised(session, flow)  # an error of autograd's explains all that is missing
    if stopped:
        unserved(session, parameters, leaves)
    quiet = [one for one in (stopped or cut or without_graph(session, flow),) if one]
    quiet += still(session, parameters, leaves, flow, finding is not None)
    if finding is not None:
        finding = outgrown(session, flow, as_written(session, finding))
        reword([finding], parameters, leaves)
    elif quiet:
        finding = min(quiet, key=lambda one: (-one.verdict.rank, one.at))
    else:
        finding = idle(session, flow)
        reword([finding] if finding else [], parameters, leaves)
    parameters = parameters if finding else thrown_away(parameters)
    culprit = teller.culprit(finding) if finding else None
    return Report(
        verdict=finding.verdict if finding else Verdict.HEALTHY,
        culprit=culprit,
        chain=teller.chain(finding, parameters) if finding else (),
        parameters=tuple(parameters),
        ops=tuple(teller.op(event) for event in session.tape.events),
        headroom=headroom(session.tape.events),
        losses=tuple(root.value for root in session.calls.roots),
        steps=len(session.ends),
        files=tuple(sorted(teller.files.items())),
        error=f"{type(session.error).__name__}: {session.error}" if session.error else "",
    )


class Teller:
    """Turns events into words: files, lines, functions, modules."""

    def __init__(self, session):
        self.session = session
        self.events = session.tape.events
        self.files: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._places: dict[tuple, tuple[str, int, str, str]] = {}

    def file(self, path: str) -> str:
        name = self._names.get(path)
        if name is None:
            name = file_name(path)
            if self.files.get(name, path) != path:
                parts = path.replace("\\", "/").split("/")
                name = "/".join(parts[-2:])
            self._names[path] = name
            self.files[name] = path
        return name

    def place(self, code, line) -> tuple[str, int, str, str]:
        """File, line, source text and function."""
        if code is None:
            return "", 0, "", ""
        found = self._places.get((code, line))
        if found is None:
            path = code.co_filename
            source = linecache.getline(path, line).strip()
            function = code.co_qualname.rpartition("<locals>.")[2]
            found = self._places[code, line] = (self.file(path), line, source, function)
        return found

    def module(self, module) -> str:
        found = self.session.tape.paths.get(id(module)) if module is not None else None
        return found[0] if found else ""

    def name(self, event: Event) -> str:
        """A leaf's name may have become known after it was first seen."""
        found = self.session.tape.names.get(id(event.leaf)) if event.leaf is not None else None
        return found[1] if found and event.phase == "source" else event.name

    def op(self, event: Event) -> Op:
        file, line, source, function = self.place(event.code, event.line)
        return Op(
            index=event.index,
            step=event.step,
            phase=event.phase,
            kind=event.kind,
            name=self.name(event),
            target=event.tool.target if event.tool else "",
            node=event.node,
            module=self.module(event.module),
            function=function,
            file=file,
            line=line,
            source=source,
            parents=event.parents,
            inputs=event.inputs,
            outputs=event.outputs,
            gradient=event.gradient,
            forward=event.forward,
            cut=event.cut,
            harmful=event.harmful,
        )

    def culprit(self, finding: Finding) -> Culprit:
        event, place = finding.event, finding.place or finding.event
        code, line = (place.code, place.line) if place is not None else (None, 0)
        file, line, source, function = self.place(code, line)
        bad = [s for s in event.outputs if s.bad] if event else []
        return Culprit(
            phase=finding.phase or event.phase,
            op=finding.op or (event.name if event else ""),
            file=file,
            line=line,
            source=source,
            module=self.module(place.module) if place is not None else "",
            function=function,
            step=event.step if event else 0,
            inputs=event.inputs if event else (),
            index=bad[0].first_bad if bad else None,
            name=finding.name,
            position=event.index if event else None,
            remark=finding.remark,
        )

    def chain(self, finding: Finding, parameters) -> tuple[Link, ...]:
        links, before = [], None
        for event in finding.path:
            word = self._event(before, event, finding)
            mask = self._mask(before) if word == "reborn" and event.phase == "backward" else None
            if mask is not None:
                links.append(Link("masked", mask.index, self._text(mask)))
            links.append(Link(word, event.index, self._text(event)))
            before = event
        for fate in parameters:
            if fate.word != "ok" and not fate.excused:
                links.append(Link("harmed", None, f"{fate.name}: {fate.word}"))
        return tuple(links)

    def _mask(self, event: Event | None) -> Event | None:
        """The first op that read an op's bad result and still gave a finite one."""
        below = {event.index} if event is not None else set()
        for other in self.events:
            read = any(parent in below and stats.bad for parent, stats in other.fed)
            if read and other.phase == "forward":
                if not other.bad:
                    return other
                below.add(other.index)
        return None

    def _event(self, before: Event | None, event: Event, finding: Finding) -> str:
        if before is None:
            first = {Verdict.SEVERED: "cut", Verdict.DEAD: "died"}
            return first.get(finding.verdict, "born")
        if finding.verdict not in (Verdict.NAN, Verdict.INF):
            return "carried"
        if before.phase == "forward" and event.phase == "backward":
            return "reborn" if not any(s.bad for s in event.inputs) else "carried"
        return "reborn" if event.has_nan and not before.has_nan else "carried"

    def _text(self, event: Event) -> str:
        file, line, _, _ = self.place(event.code, event.line)
        where = f" at {file}:{line}" if file else ""
        bad = next((s for s in event.outputs if s.bad), None)
        what = f": {bad.nan} NaN, {bad.pos_inf + bad.neg_inf} Inf of {bad.size}" if bad else ""
        return f"{event.name}{where}{what}"
