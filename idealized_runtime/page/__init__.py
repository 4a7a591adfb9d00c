"""The planner in a browser: choices as widgets, answers of the library, and what a reader takes away.

==============  ======================================================================================
``state``       what is chosen, as a link and back
``files``       files that were dropped into the page, kept on this machine
``machines``    what models can be run on: stacks of timing logs, read once, and servers
``queries``     the answer for queries that come one at a time
``served``      the answer for queries that come at a rate, within objectives
``sources``     where each number of an answer comes from
``figures``     figures of an answer, and the files a reader takes away
``words``       numbers in sentences
``markup``      HTML in which text is text
``choices``     widgets of what is chosen
``planner``     the page: widgets, and what they show
``server``      the server behind the page, for this machine alone
``kernels``     where its pages run: processes that are forked, with all that is imported
==============  ======================================================================================
"""
