"""A project of one's own: `flame init` makes it for the data at hand, `flame upgrade` keeps it up to date.

    columns       which columns of a table name pictures and hold captions
    data_survey   what a folder of pictures, a table or shards hold, read by the source that the project will have
    params_file   the commented `params.yaml` for such data
    creation      the files of a new project
    asking        what a person wants
    initialise    `flame init` itself
    record        the shipped text of each file, kept in the project as the base of later merges
    merge         merges two changes of a text, line by line
    upgrade       what an upgrade would change, and doing so

docs/projects.md is for users.
"""
