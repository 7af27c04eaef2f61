"""Servers on loopback that speak the OpenAI API: a real one, a scripted one, a hostile one."""
