"""What smtpf costs: speed, processor time, memory and latency on one machine, each next to the same mail without it.

``python -m bench`` (or ``bench/run``) measures, ``python -m bench.soak`` proves that nothing is lost or doubled under a bad
next hop, ``python -m bench.corpus`` that real mail passes unchanged with every parser on; ``python -m bench.dns`` measures what
look-ups cost. Figures and how to read them:
``docs/performance.md``.
"""
