"Package metadata comes from settings.ini, so that it is written down once."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

cfg = ConfigParser(delimiters=['='])
cfg.read('settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']

lib = cfg['lib_path']
extras = {k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')}
everything = [o for k in 'train inspect kaggle scale hub heic'.split() for o in extras[k]]   # peers want an old numpy
extras['dev'] = list(dict.fromkeys(everything + extras['dev']))
readme = Path('README.md')

setup(
    name = cfg['lib_name'],
    version = cfg['version'],
    description = cfg['description'],
    long_description = readme.read_text(encoding='utf-8') if readme.exists() else cfg['description'],
    long_description_content_type = 'text/markdown',
    keywords = cfg['keywords'],
    author = cfg['author'],
    author_email = cfg['author_email'],
    url = cfg['git_url'],
    license = 'Apache-2.0',
    classifiers = [
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Natural Language :: English',
        *[f'Programming Language :: Python :: 3.{v}' for v in range(10, 14)]],
    packages = find_packages(include=[lib, f'{lib}.*']),
    include_package_data = False,
    package_data = {lib: ['*.json', 'weights/*']},
    python_requires = f">={cfg['min_python']}",
    install_requires = cfg['requirements'].split(),
    extras_require = extras,
    entry_points = {
        'console_scripts': cfg.get('console_scripts', '').split(),
        'nbdev': [f"{lib}={lib}._modidx:d"]},
    zip_safe = False)
