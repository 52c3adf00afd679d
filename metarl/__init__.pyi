from metarl.api import *
