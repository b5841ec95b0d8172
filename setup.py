from setuptools import find_packages, setup

setup(
    # find_packages() does not see a plugin directory, which must stay without an __init__.py.
    packages=[*find_packages(include=["twisted_beastws", "twisted_beastws.*"]), "twisted.plugins"],
    # Named, so that an editable install puts the checkout on sys.path: an import hook would hide twisted/plugins.
    package_dir={"": "."},
    package_data={"twisted_beastws": ["py.typed"], "twisted_beastws.service": ["*.html"]},
)
