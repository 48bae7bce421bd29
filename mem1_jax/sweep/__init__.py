"""Sweeps: the same command at many points of its knobs, one run folder each.

    points   what a sweep's file is made of, and its points by name
    folder   what is kept of a sweep, so that it can be resumed
    runner   commands of points as processes, some at a time
    results  what each point came to
    plots    figures of it
    report   sweep.json, sweep.md and a page
    command  `main sweep`
"""
