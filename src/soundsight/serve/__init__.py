"""The page and the JSON service: `soundsight serve`, an optional extra (`pip install "soundsight[web]"`).

`server` binds and runs, `app` has the routes, `guard` refuses strangers, `uploads` takes bytes in,
`jobs` is the queue before the one thread that predicts, `predictions` makes the JSON, `examples`
synthesises clips to try, `static/` is the page.

Why not Gradio: it installs a score of further packages and sends a megabyte of script, loads fonts and a
script from other hosts, and reports its use unless told not to. This page is some tens of kilobytes of
hand-written HTML, CSS and JavaScript that talk to the host they came from and to nobody else.

The page never names a path of this machine, and no name that it sends is ever opened: only the bytes that
were uploaded are read, from a temporary folder that is gone when the prediction is.
"""
